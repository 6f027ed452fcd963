"""The app's own style rules: chips, the ranked list and its cut. Light and dark come from the page's text colour."""

from __future__ import annotations

from functools import cache

from mera_core.figures import FIELDS

_RULES = """
.block-container { padding-top: 3.2rem; padding-bottom: 3rem; max-width: 1400px; }
[class*="st-key-chip_"] button { justify-content: flex-start; text-align: left; min-height: 1.9rem;
  padding: .1rem .5rem .1rem .6rem; border-left: 5px solid #7f7f7f; border-radius: 6px; line-height: 1.25; }
[class*="st-key-chip_"] button p { font-size: .86rem; }
[class*="st-key-chip_unread"] button { border-style: dashed; border-left-style: dashed; opacity: .85; }
[class*="st-key-found_"] button { justify-content: flex-start; text-align: left; border-left: 5px solid #7f7f7f;
  border-radius: 6px; min-height: 1.9rem; padding: .1rem .6rem; line-height: 1.25; }
[class*="st-key-found_"] button > div, [class*="st-key-chip_"] button > div { justify-content: flex-start; }
[class*="st-key-found_"] button p { font-size: .88rem; text-align: left; }
.mera-list { width: 100%; border-collapse: collapse; font-size: .93rem; line-height: 1.3; }
.mera-list caption { text-align: left; font-size: .84rem; opacity: .8; padding-bottom: .4rem; }
.mera-list th { text-align: left; font-weight: 600; font-size: .8rem; opacity: .8; padding: .2rem .5rem; border: 0;
  border-bottom: 1px solid color-mix(in srgb, currentColor 35%, transparent); }
.mera-list td { padding: .36rem .5rem; vertical-align: top; border: 0;
  border-bottom: 1px solid color-mix(in srgb, currentColor 12%, transparent); }
.mera-list .n { text-align: right; font-variant-numeric: tabular-nums; opacity: .8; width: 2rem; }
.mera-list .c { white-space: nowrap; font-variant-numeric: tabular-nums; font-weight: 600; }
.mera-list .c span { border-left: 5px solid; padding-left: .45rem; }
.mera-list .s { width: 8.6rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
.mera-list .sub { display: block; font-size: .8rem; opacity: .85; margin-top: .1rem; }
.mera-list .below .d { opacity: .9; }
.mera-mark { display: inline-block; border: 1px solid color-mix(in srgb, currentColor 45%, transparent);
  border-radius: 99px; padding: 0 .5em; font-size: .95em; margin-left: .35em; }
.mera-mark.new { background: color-mix(in srgb, currentColor 14%, transparent); border-color: transparent;
  font-weight: 600; }
.mera-bar { display: inline-block; position: relative; width: 5.4rem; height: .62rem; border-radius: 3px;
  background: color-mix(in srgb, currentColor 13%, transparent); margin-right: .45rem; vertical-align: middle; }
.mera-bar i { position: absolute; inset: 0 auto 0 0; border-radius: 3px; }
.mera-bar b { position: absolute; left: 50%; top: -3px; bottom: -3px; border-left: 2px solid currentColor; }
.mera-list .below .mera-bar i { opacity: .5; }
.mera-list tr.cut td { padding: .5rem .5rem .45rem; border-bottom: 0; border-top: 2px dashed currentColor;
  font-size: .84rem; font-weight: 600; }
.mera-list tr.cut.top td { border-top: 0; border-bottom: 2px dashed currentColor; }
.mera-answer { border-left: 5px solid; padding: .3rem 0 .3rem .8rem; font-size: 1.15rem; line-height: 1.4;
  min-height: 3rem; overflow-wrap: anywhere; }
.mera-answer small { display: block; font-size: .8rem; opacity: .8; }
.mera-pieces { width: 100%; border-collapse: collapse; font-size: .86rem; }
.mera-pieces td { padding: .2rem .4rem .2rem 0; vertical-align: top; border: 0; overflow-wrap: anywhere; }
.mera-pieces td:first-child { font-family: "Source Code Pro", monospace; white-space: nowrap; max-width: 12rem;
  overflow: hidden; text-overflow: ellipsis; }
.mera-empty { border: 1px dashed color-mix(in srgb, currentColor 40%, transparent); border-radius: 8px;
  padding: 1.4rem; text-align: center; }
@media (max-width: 640px) {
  .block-container { padding-left: 1rem; padding-right: 1rem; }
  .mera-list td, .mera-list th { padding-left: .3rem; padding-right: .3rem; }
  .mera-list .s { width: 4.6rem; } .mera-bar { width: 2.4rem; margin-right: .3rem; }
}
"""


@cache
def stylesheet() -> str:
    """The rules, and for each medical field its colour on the left edge of chips and search results."""
    edges = (
        f'[class*="st-key-chip_{field}_"] button, [class*="st-key-found_{field}_"] button'
        f" {{ border-left-color: {colour}; }}"
        for field, (_, colour) in FIELDS.items()
    )
    return _RULES + "\n".join(edges)
