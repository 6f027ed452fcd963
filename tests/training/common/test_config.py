"""Run settings: a flat YAML, units refused where they make no sense, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mera_core.common.errors import InputError
from training.common.config import MemorizeConfig, RankConfig

ROWS_ONLY = {"train_missed_rows_only": True, "init_from": "x", "epochs_on_missed": 1}
CONFIGS = Path(__file__).resolve().parents[3] / "training" / "configs"


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
    assert {name: list(v) if isinstance(v := getattr(rank, name), tuple) else v for name in named} == named


def test_overrides_win_and_none_leaves_the_file(tmp_path) -> None:
    path = written(tmp_path, "seed: 4\nepochs: 2\n")
    assert RankConfig.load(path, seed=9, data=None).seed == 9
    assert RankConfig.load(path, seed=None).seed == 4 and RankConfig.load(path).epochs == 2


@pytest.mark.parametrize("config", [MemorizeConfig(), RankConfig(levels=(0, 2), level_weights=(1.0, 0.5), epochs=2)])
def test_to_dict_makes_the_same_settings_again(config) -> None:
    assert type(config)(**config.to_dict()) == config
    assert isinstance(RankConfig(epochs=2).to_dict()["epochs"], int)  # earlier runs are known by how they were written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead: 3", "sead is not a known"),
        ("hidden_size: 32", "hidden_size is not a known"),  # a setting of the other stage
        ("1: 3", "1 is not a known"),
        ("a: [", "is not YAML"),
        ("- 1\n- 2", "holds no settings"),
        ("epochs: 0", "epochs must be 0.001 or more, not 0"),
        ("epochs:", "epochs must be a number, not nothing"),
        ("learning_rate: .nan", "learning_rate must be a finite number, not nan"),
        ("learning_rate: 1e-3", "learning_rate must be a number"),  # YAML 1.1 reads this as text
        ("batch_size: 2.5", "batch_size must be a whole number, not 2.5"),
        ("batch_size: true", "batch_size must be a whole number, not true"),
        ("profile: 'no'", "profile must be true or false, not 'no'"),
        ("levels: 0", "levels must be a list, not 0"),
        ("levels: [9]", r"levels\[0\] must be 5 or less, not 9"),
        ("levels: [1, 0]", "the levels must rise"),
        ("levels: [1, 1]", "levels must name each once"),
        ("levels: [0, 1]\nlevel_weights: [1]", "1 level_weights for 2 levels"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_sentence(tmp_path, text, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        RankConfig.load(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tuning": "lora"}, "needs a backbone"),
        ({"tuning": "lora", "backbone": "x", "common_direction": 1.0}, "common_direction"),
        ({"tuning": "lora", "backbone": "x", "encoded_epochs": 1.0}, "encoded_epochs trains every weight"),
        ({"tuning": "lora", "backbone": "x", "optimizer": "muon"}, "Muon is for whole matrices"),
        ({"tuning": "qlora", "backbone": "x", "precision": "mixed"}, "Mixed precision is for full tuning"),
        ({"init_from": "x", "encoded_epochs": 1.0}, "make all rows anew"),
        ({"init_from": "x", "backbone": "x"}, "leave backbone empty"),
        ({"epochs_on_missed": 1}, "set encoded_epochs or init_from"),
        ({"train_missed_rows_only": True, "init_from": "x"}, "set init_from and epochs_on_missed"),
        (ROWS_ONLY, "weight_decay to 0"),
        (ROWS_ONLY | {"weight_decay": 0, "optimizer": "muon"}, "optimizer to adamw"),
        ({"hidden_size": 48}, "hidden_size is 48; it must be a multiple of 32"),
        ({"intermediate_size": 100}, "intermediate_size is 100"),
        ({"hidden_size": 64, "heads": 5}, "can't be divided among 5 heads"),
        ({"hidden_size": 32, "heads": 32}, "among 32 heads into even parts"),
        ({"systems": ["ICD11"]}, r"systems\[0\] must be ICD10 or ICD9, not 'ICD11'"),
    ],
)
def test_memorize_settings_that_make_no_sense(values, message) -> None:
    with pytest.raises(InputError, match=message):
        MemorizeConfig(**values)


def test_a_text_counts_as_a_list_of_one() -> None:
    assert MemorizeConfig(systems="ICD9").systems == ("ICD9",)
    assert RankConfig(visit_details="specialty", lora_targets="q_proj").lora_targets == ("q_proj",)
    assert RankConfig(visit_details="specialty").visit_details == ("specialty",)


def test_a_setting_that_came_later_does_not_change_what_runs_before_it_are_known_by() -> None:
    assert "label_space" not in RankConfig().to_dict()
    assert RankConfig(label_space="billable").to_dict()["label_space"] == "billable"


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no configuration file .*absent\.yaml"):
        RankConfig.load(tmp_path / "absent.yaml")
