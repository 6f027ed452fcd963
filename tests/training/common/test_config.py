"""Run settings: a flat YAML, units refused where they make no sense, and one sentence for each mistake."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from mera_core.common.errors import InputError
from training.common.config import MemorizeConfig, RankConfig
from training.common.config_checks import RANGES

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
        ("passes: 0", "passes is 0; it must be 0.001 or more"),
        ("passes: .inf", "passes is inf; it must be a finite number"),
        ("learning_rate: .nan", "learning_rate is nan; it must be a finite number"),
        ("batch_size: 2.5", "batch_size is 2.5; it must be a whole number"),
        ("batch_size: true", "batch_size is true; it must be a whole number"),
        ("profile: 'no'", "profile is 'no'; it must be true or false"),
        ("data: 7", "data is 7; it must be a text"),
        ("start:", "start is empty; it must be a text"),
        ("levels: 0", "levels is 0; it must be a list, each of it a whole number"),
        ("levels: [9]", r"levels is \[9\]; it must be from 0 to 5"),
        ("levels: [1, 0]", "the levels must rise"),
        ("levels: [1, 1]", "must name each once"),
        ("levels: []", "levels is empty; it must name at least one"),
        ("visit_details: [1]", r"visit_details is \[1\]; it must be a list, each of it a text"),
        ("temperature: 0", "temperature is 0; it must be above 0"),
        ("rehearsal: -4", "rehearsal is -4; it must be 0 or more"),
        ("save_every: -1", "save_every is -1; it must be 0 or more"),
        ("lora_dropout: 1.5", "lora_dropout is 1.5; it must be from 0 to below 1"),
        ("lora_rank: 1.5", "lora_rank is 1.5; it must be a whole number"),
        ("gradient_checkpointing: 'false'", "gradient_checkpointing is 'false'; it must be true or false"),
        ("label_space: all", 'label_space is "all"; it is data or billable'),
        ("batches: by_length", 'batches is "by_length"; it is by_visits, by_tokens or mixed'),
        ("batch_size: -1", "batch_size is -1"),
        ("learning_rate: 0.0", "learning_rate is 0.0"),
        ("warmup_share: 1", "warmup_share is 1"),
        ("threshold: fixed", 'threshold is "fixed"'),
        ("ranking_loss: hinge", 'ranking_loss is "hinge"'),
        ("levels: [0, 1]\nlevel_weights: [1]", "1 level_weights for 2 levels"),
        ("drop: 1.0", "drop is 1.0; it must be from 0 to below 1"),
        ("average: 1", "average is 1; it must be from 0 to below 1"),
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
        ({"backwards_share": 1.5}, "backwards_share is 1.5; it must be a share between 0 and 1"),
        ({"systems": ()}, "systems is empty"),
        ({"systems": None}, "systems is empty; it must be a list"),
        ({"systems": 9}, "systems is 9; it must be a list"),
        ({"systems": ["ICD11"]}, 'systems is "ICD11"; it is ICD10 or ICD9|systems is "ICD11"; it is ICD9 or ICD10'),
        ({"heads": 0}, "heads is 0; it must be 1 or more"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": 32, "heads": 32}, "among 32 heads into even parts"),
        ({"layers": 0}, "layers is 0"),
        ({"word_pieces": -10}, "word_pieces is -10; it must be 350 or more"),
        ({"hierarchy_share": -3}, "hierarchy_share is -3"),
        ({"backbone": 7}, "backbone is 7; it must be a text"),
        ({"batches": "by_visits"}, 'batches is "by_visits"; it is mixed or by_length'),
    ],
)
def test_memorize_settings_that_make_no_sense(values, message) -> None:
    with pytest.raises(InputError, match=message):
        MemorizeConfig(**values)


def test_every_number_has_a_range_and_its_default_lies_in_it() -> None:
    for kind in (MemorizeConfig, RankConfig):
        numbers = {field.name for field in fields(kind) if any(word in field.type for word in ("int", "float"))}
        assert numbers <= set(RANGES)
        assert kind() == kind(**asdict(kind()))


def test_a_text_counts_as_a_list_of_one() -> None:
    assert MemorizeConfig(systems="ICD9").systems == ("ICD9",)
    assert RankConfig(visit_details="specialty", lora_targets="q_proj").lora_targets == ("q_proj",)
    assert RankConfig(visit_details="specialty").visit_details == ("specialty",)


def test_a_setting_that_came_later_does_not_change_what_runs_before_it_are_known_by() -> None:
    assert "label_space" not in RankConfig().to_dict()
    assert RankConfig(label_space="billable").to_dict()["label_space"] == "billable"


def test_sizes_of_a_pretrained_backbone_are_its_own() -> None:
    assert MemorizeConfig(backbone="some/model", hidden_size=7).hidden_size == 7


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no configuration file .*absent\.yaml"):
        RankConfig.load(tmp_path / "absent.yaml")
