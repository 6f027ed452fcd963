"""Logistic regression of binned outcomes on one variable, for calibration and for its slope."""

from __future__ import annotations

import numpy as np

from mera_core.evaluation.bootstrap import divide


def logistic_lines(x: np.ndarray, size: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regressions of binned outcomes by Newton's method (Platt 1999): x [bins], size and true [rows, bins] ->
    slope and intercept [rows]; NaN or no number worth having where all outcomes of a row are equal."""
    center = divide((size * x).sum(1), size.sum(1))[:, None]
    z = x - center
    rate = np.clip(divide(true.sum(1), size.sum(1)), 1e-9, 1 - 1e-9)
    a, b = np.log(rate / (1 - rate)), np.zeros(len(size))
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(a[:, None] + b[:, None] * z, -30, 30)))
        w = size * p * (1 - p)
        error = true - size * p
        g0, g1 = error.sum(1), (error * z).sum(1)
        h00, h01, h11 = w.sum(1), (w * z).sum(1), (w * z * z).sum(1)
        det = h00 * h11 - h01 * h01
        step_a, step_b = divide(h11 * g0 - h01 * g1, det), divide(h00 * g1 - h01 * g0, det)
        # Far from the answer Newton overshoots: no single step of more than 1.
        scale = np.maximum(1.0, np.maximum(np.abs(step_a), np.abs(step_b)))
        a, b = a + step_a / scale, b + step_b / scale
        if np.nanmax(np.abs([step_a, step_b]), initial=0) < 1e-9:
            break
    return b, a - b * center[:, 0]
