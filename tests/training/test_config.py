"""Run settings: a flat YAML, units refused where they make no sense, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mera_core.errors import InputError
from training.config import MemorizeConfig, RankConfig

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_configurations_load() -> None:
    memorize = MemorizeConfig.load(CONFIGS / "mera-mini-memorize.yaml")
    rank = RankConfig.load(CONFIGS / "mera-mini-rank.yaml")
    assert memorize.systems == ("ICD9",) and memorize.hidden_size % 64 == 0  # as 4-bit serving needs
    assert rank.format == "uci_diabetes130" and rank.rehearsal > 0
    named = yaml.safe_load((CONFIGS / "mera-mini-rank.yaml").read_text(encoding="utf-8"))
    values = rank.to_dict()
    assert {name: list(v) if isinstance(v := values[name], tuple) else v for name in named} == named


def test_overrides_win_and_none_leaves_the_file(tmp_path) -> None:
    path = written(tmp_path, "seed: 4\npasses: 2\n")
    assert RankConfig.load(path, seed=9, data=None).seed == 9
    assert RankConfig.load(path, seed=None).seed == 4 and RankConfig.load(path).passes == 2


def test_an_empty_file_means_the_defaults(tmp_path) -> None:
    assert RankConfig.load(written(tmp_path, "")) == RankConfig()


def test_to_dict_makes_the_same_settings_again() -> None:
    config = RankConfig(levels=(0, 2), level_weights=(1.0, 0.5), visit_details=("admission",))
    assert RankConfig(**config.to_dict()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead: 3", "does not exist: sead"),
        ("hidden_size: 32", "does not exist: hidden_size"),  # a setting of the other stage
        ("a: [", "is not YAML"),
        ("- 1\n- 2", "holds no settings"),
        ("passes: 0", "passes is 0; it must be above 0"),
        ("batch_size: -1", "batch_size is -1"),
        ("learning_rate: 0.0", "learning_rate is 0.0"),
        ("warmup_share: 1", "warmup_share is 1"),
        ("threshold: fixed", 'threshold is "fixed"'),
        ("ranking_loss: hinge", 'ranking_loss is "hinge"'),
        ("levels: [0, 1]\nlevel_weights: [1]", "1 level_weights for 2 levels"),
        ("drop: 1.0", "drop and average"),
        ("average: 1", "drop and average"),
        ("batch_size: many", "batch_size"),
        ("learning_rate: 1e-3", "learning_rate"),  # YAML 1.1 reads this as text
        ("passes:", "passes"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_sentence(tmp_path, text, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        RankConfig.load(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 48}, "hidden_size is 48; it must be a multiple of 32"),
        ({"intermediate_size": 100}, "intermediate_size is 100"),
        ({"hidden_size": 64, "heads": 5}, "can't be divided among 5 heads"),
        ({"row_start": "zero"}, 'row_start is "zero"'),
        ({"backwards_share": 1.5}, "backwards_share is 1.5"),
    ],
)
def test_memorize_settings_that_make_no_sense(values, message) -> None:
    with pytest.raises(InputError, match=message):
        MemorizeConfig(**values)


def test_sizes_of_a_pretrained_backbone_are_its_own() -> None:
    assert MemorizeConfig(backbone="some/model", hidden_size=7).hidden_size == 7


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no configuration file .*absent\.yaml"):
        RankConfig.load(tmp_path / "absent.yaml")
