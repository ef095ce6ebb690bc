from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys_spark.config import Settings, load_settings
from recsys_spark.errors import SettingsError

MINIMAL = """
[storage]
root = "/data/root"

[events]
path = "/data/events"
columns = { rating = "stars", timestamp = "at" }
"""
Written = Callable[..., str]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RECSYS_SPARK__")]:
        monkeypatch.delenv(name)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(text: str = "", base: str = MINIMAL) -> str:
        path = tmp_path / "settings.toml"
        path.write_text(base + text)
        return str(path)

    return write


def problem(path: str, *overrides: str) -> str:
    with pytest.raises(SettingsError) as failure:
        load_settings(path, overrides)
    message = str(failure.value)
    assert "\n" not in message
    assert failure.value.exit_code == 2
    return message


def test_defaults_fill_what_the_file_leaves_out(written: Written) -> None:
    settings = load_settings(written())
    assert (settings.storage.root, settings.events.format, settings.recommend.top_k) == ("/data/root", "parquet", 10)
    assert settings.items is None
    assert settings.feedback.duplicate_policy == "last"


def test_later_sources_win(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("[model]\nepochs = 5\nnegatives = 2\n[recommend]\ntop_k = 7\n")
    assert load_settings(path).model.epochs == 5
    monkeypatch.setenv("RECSYS_SPARK__MODEL__EPOCHS", "6")
    monkeypatch.setenv("RECSYS_SPARK__RECOMMEND__TOP_K", "8")
    from_environment = load_settings(path)
    assert (from_environment.model.epochs, from_environment.recommend.top_k) == (6, 8)
    settings = load_settings(path, ["model.epochs=9"])
    assert settings.model.epochs == 9, "--set is above the environment"
    assert settings.recommend.top_k == 8, "the environment is above the file, with --set or without"
    assert settings.model.negatives == 2, "the rest of a section stays"


def test_the_command_line_alone_can_give_what_the_file_lacks(written: Written) -> None:
    path = written(base='[events]\npath = "/data/events"\n')
    settings = load_settings(path, ["storage.root=/data/root", "feedback.kind=implicit", "evaluate.split=random"])
    assert settings.model_fields_set | {"storage"} == settings.model_fields_set
    assert (settings.storage.root, settings.feedback.duplicate_policy) == ("/data/root", "sum")
    assert problem(path).startswith(f"{path}: storage: Field required")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluate.ks=[1, 2]", (1, 2)),
        ("evaluate.split=random", "random"),
        ("evaluate.share=0.25", 0.25),
        ('evaluate.split="random"', "random"),
        ("evaluate.split = random", "random"),
    ],
)
def test_overrides_are_toml_values_or_plain_text(written: Written, override: str, expected: object) -> None:
    evaluate = load_settings(written(), [override]).evaluate
    assert getattr(evaluate, override.split("=")[0].strip().removeprefix("evaluate.")) == expected


def test_the_last_of_several_overrides_wins(written: Written) -> None:
    assert load_settings(written(), ["seed=1", "seed=2"]).seed == 2


def test_keys_with_dots_can_be_overridden_as_a_table(written: Written) -> None:
    settings = load_settings(written(), ['spark.conf={"spark.task.cpus"="2"}'])
    assert settings.spark.conf == {"spark.task.cpus": "2"}


def test_lists_in_the_environment_are_json(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_SPARK__EVALUATE__KS", "[3, 4]")
    assert load_settings(written()).evaluate.ks == (3, 4)
    monkeypatch.setenv("RECSYS_SPARK__EVALUATE__KS", "3, 4")
    message = problem(written())
    assert "RECSYS_SPARK__EVALUATE__KS" in message
    assert "JSON" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "RECSYS_SPARK__MODLE__EPOCHS",
            "environment variable RECSYS_SPARK__MODLE__EPOCHS: there is no section 'modle'",
        ),
        ("RECSYS_SPARK__MODEL__EPOCH", "model.epoch: unknown setting, got '3'"),
        ("RECSYS_SPARK__MODEL", "settings.toml, RECSYS_SPARK__* variables: model: Input should be a valid dictionary"),
    ],
)
def test_unknown_names_in_the_environment_are_refused(
    written: Written, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setenv(name, "3")
    assert message in problem(written())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modle]\nepochs = 3\n", "modle: unknown setting"),
        ("[model]\nepoch = 3\n", "model.epoch: unknown setting, got 3"),
        ("[model]\nepochs = 'many'\n", "model.epochs: Input should be a valid integer"),
        ("[model]\nepochs = 0\n", "model.epochs: Input should be greater than or equal to 1, got 0"),
        (
            "[model]\nloss = 'bpr'\nmax_trained_users = 9\n",
            "model: max_trained_users needs a model that gives users their vectors without training: loss 'ials', or "
            "architecture 'two_tower' without own_embedding; got 'bpr', 'dot'",
        ),
        (
            "[model]\nloss = 'hinge'\n",
            "model.loss: Input should be 'ials', 'spectral', 'softmax', 'sampled_softmax', 'cosine_contrastive', "
            "'bpr', 'bce', 'mse' or 'rating_bce', got 'hinge'",
        ),
        (
            "[model]\narchitecture = 'two_tower'\n",
            "model: architecture 'two_tower' needs loss 'softmax' or 'sampled_softmax' or 'cosine_contrastive', got "
            "'ials'",
        ),
        ("[model]\nown_embedding = true\n", "model: own_embedding needs architecture 'two_tower', got 'dot'"),
        (
            "[model]\narchitecture = 'neumf'\n",
            "model: architecture 'neumf' needs loss 'bpr' or 'bce' or 'mse' or 'rating_bce', got 'ials'",
        ),
        (
            "[model]\narchitecture = 'neumf'\nloss = 'bce'\n",
            "model.architecture = 'neumf' predicts pairs and gives no lists: set recommend.model = 'neighbors'",
        ),
        (
            "[model]\nloss = 'bpr'\nin_batch_negatives = true\n",
            "model: in_batch_negatives needs loss 'sampled_softmax' or 'cosine_contrastive', got 'bpr'",
        ),
        (
            "[model]\nloss = 'cosine_contrastive'\nsimilarity = 'dot'\n",
            "model: similarity must be 'cosine' for loss 'cosine_contrastive', got 'dot'",
        ),
        ("[items]\npath = '/x'\n", "items.id: Field required"),
        ("[spark]\ndriver_memory = '4 GB'\n", "spark.driver_memory: String should match pattern"),
        ("[feedback]\nrange = [5, 1]\n", "feedback: range must rise from lowest to highest, got [5.0, 1.0]"),
        ("[feedback]\nkind = 'implicit'\nevent_weights = { view = 0 }\n", "feedback: event_weights must be above 0"),
        ("[feedback]\nhalf_life_days = 3\n", "feedback: half_life_days applies to implicit feedback only"),
        ("[evaluate]\nks = [10, 5]\n", "evaluate: ks must be rising whole numbers from 1, got [10, 5]"),
        ("[neighbors]\nk = 0\n", "neighbors: k must be 1 or more, or 'all', got 0"),
        (
            "[neighbors]\nenabled = false\n[recommend]\nmodel = 'neighbors'\n",
            "recommend.model = 'neighbors' needs neighbors.enabled = true",
        ),
        ("[feedback]\nevent_weights = { view = 1 }\n", "feedback.event_weights needs events.columns.event_type"),
    ],
)
def test_wrong_values_are_named(written: Written, text: str, message: str) -> None:
    assert message in problem(written(text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "events.timezone=Mars/Olympus",
            "events.timezone: 'Mars/Olympus' is not a time zone; use a name such as 'UTC'",
        ),
        ("events.timezone=/etc/passwd", "'/etc/passwd' is not a time zone"),
        ("storage.root=${NO_SUCH_VARIABLE}/root", "storage.root: '${NO_SUCH_VARIABLE}/root' names an environment"),
        ("storage.root=", "storage.root: Value should have at least 1 item"),
        ("events.path=$NO_SUCH_VARIABLE", "events.path: '$NO_SUCH_VARIABLE' names an environment variable"),
        ("events.columns.rating=3", "events.columns.rating: Input should be a valid string, got 3"),
        ("seed", "--set 'seed' is not of the form section.key=value"),
        ("=3", "--set '=3' is not of the form section.key=value"),
        ("events.path.deep=3", "'path' is not a section"),
        ("modle.epochs=3", "modle: unknown setting"),
    ],
)
def test_wrong_overrides_are_named(written: Written, override: str, message: str) -> None:
    assert message in problem(written(), override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "events.columns.rating must name a column for explicit feedback"),
        ("[feedback]\nkind = 'implicit'\n", "evaluate.split = 'last' needs events.columns.timestamp"),
        (
            "[feedback]\nkind = 'implicit'\nhalf_life_days = 3\n[evaluate]\nsplit = 'random'\n",
            "feedback.half_life_days needs events.columns.timestamp",
        ),
        (
            "[feedback]\nkind = 'implicit'\n[popularity]\nhalf_life_days = 3\n[evaluate]\nsplit = 'random'\n",
            "popularity.half_life_days needs events.columns.timestamp",
        ),
        (
            "[feedback]\nkind = 'implicit'\nduplicates = 'last'\n[evaluate]\nsplit = 'random'\n",
            "feedback.duplicates = 'last' needs events.columns.timestamp",
        ),
    ],
)
def test_settings_that_contradict_the_columns_are_named(written: Written, text: str, message: str) -> None:
    base = '[storage]\nroot = "/data/root"\n[events]\npath = "/data/events"\n'
    assert message in problem(written(text, base))


def test_missing_sections_are_named_all_at_once(written: Written) -> None:
    message = problem(written(base=""))
    assert "storage: Field required" in message
    assert "events: Field required" in message


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing, broken, binary = (tmp_path / name for name in ("missing.toml", "broken.toml", "binary.toml"))
    broken.write_text("[model\nepochs")
    binary.write_bytes(b"\xff\xfe\x00")
    assert problem(str(missing)) == f"settings file {str(missing)!r} cannot be read: No such file or directory"
    assert problem(str(tmp_path)).startswith(f"settings file {str(tmp_path)!r} cannot be read: Is a directory")
    assert problem(str(broken)).startswith(f"settings file {str(broken)!r} is not valid TOML")
    assert problem(str(binary)).startswith(f"settings file {str(binary)!r} is not valid TOML")


def test_paths_expand_variables_and_home(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_HOME", "/lake")
    monkeypatch.setenv("HOME", "/home/ann")
    settings = load_settings(written(), ["storage.root=${DATA_HOME}/root", "events.path=~/events"])
    assert (settings.storage.root, settings.events.path) == ("/lake/root", "/home/ann/events")


def test_settings_never_change(written: Written) -> None:
    settings = load_settings(written())
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.model.epochs = 3  # type: ignore[misc]


def test_the_digest_tells_what_results_depend_on(written: Written) -> None:
    path = written()
    digest = load_settings(path).digest()
    elsewhere = ["storage.root=/other", "spark.shuffle_partitions=3", "model.tensorboard=/logs"]
    assert load_settings(path, elsewhere).digest() == digest
    for override in ("seed=1", "model.epochs=3", "events.path=/other", "evaluate.split=random"):
        assert load_settings(path, [override]).digest() != digest, override


@pytest.mark.parametrize("name", ["demo", "nightly"])
def test_the_settings_files_that_ship_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parents[1] / "conf" / f"{name}.toml"
    for variable in {part.split("}")[0] for part in path.read_text().split("${")[1:]}:
        monkeypatch.setenv(variable, "/somewhere")
    assert isinstance(load_settings(path), Settings)


def test_a_segment_must_be_an_attribute_of_users(written: Written) -> None:
    with pytest.raises(SettingsError, match=r"popularity.segment 'land' is not among users.attributes, \[\]"):
        load_settings(written(), ["popularity.segment=land"])
    users = '[users]\npath = "u"\nid = "name"\nattributes = { country = "land" }\n'
    with pytest.raises(SettingsError, match=r"segment 'land' is not among users.attributes, \['country'\]"):
        load_settings(written(users), ["popularity.segment=land"])
    assert load_settings(written(users), ["popularity.segment=country"]).popularity.min_segment_users == 100


def test_features_must_be_attributes_of_items(written: Written) -> None:
    chosen = ["model.architecture=two_tower", "model.loss=softmax", 'model.item_features=["genres"]']
    with pytest.raises(SettingsError, match=r"item_features \['genres'\] are not among items.attributes, \[\]"):
        load_settings(written(), chosen)
    with pytest.raises(SettingsError, match="item_features needs architecture 'two_tower', got 'dot'"):
        load_settings(written(), ['model.item_features=["genres"]'])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["diversity.weight=1"], "diversity.weight: Input should be less than 1, got 1"),
        (["diversity.category=genres"], "diversity: category and max_per_category need each other"),
        (["diversity.max_per_category=2"], "diversity: category and max_per_category need each other"),
        (
            ["diversity.category=genres", "diversity.max_per_category=2"],
            "diversity.category ['genres'] are not among items.attributes, []",
        ),
        (["diversity.candidates=9"], "diversity.candidates must be at least recommend.top_k = 10, got 9"),
    ],
)
def test_what_lists_cannot_be_reranked_by_is_named(written: Written, chosen: list[str], message: str) -> None:
    assert message in problem(written(), *chosen)


def test_lists_are_picked_from_five_times_as_many(written: Written) -> None:
    diversity = load_settings(written()).diversity
    assert not diversity.is_on
    assert [diversity.pool(top_k) for top_k in (3, 200, 300, 5000)] == [15, 1000, 1000, 5000]
    assert load_settings(written(), ["diversity.weight=0.3"]).diversity.is_on
    assert load_settings(written(), ["diversity.candidates=70"]).diversity.pool(10) == 70
