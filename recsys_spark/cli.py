"""The command line: the whole night, each step alone, and a look at what was published.

Exit codes: 0 published or done, 1 failed, 2 wrong usage or settings, 3 refused by the audit, 4 published, but not
delivered to every store.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs import nightly
from recsys_spark.comparison import compare_models
from recsys_spark.config import Settings, file_content, load_settings, with_changes
from recsys_spark.errors import RecsysError
from recsys_spark.night import Step, open_night, parse_run_date
from recsys_spark.report.advised import print_advice
from recsys_spark.report.compared import print_comparison
from recsys_spark.report.planned import print_plan
from recsys_spark.report.published import clean_up, forget, predict_to, print_lists, print_runs, roll_back
from recsys_spark.report.summary import print_summary
from recsys_spark.report.tuned import gain_of, print_line, print_trial, print_tuned
from recsys_spark.search_spaces import sections_of
from recsys_spark.sinks.exporting import export_to
from recsys_spark.tuning import output_paths, tune_model, write_settings

app = typer.Typer(
    help="A nightly batch recommender on Spark. Start with: recsys-spark run --settings conf/demo.toml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# Into a file or pipe, tables are as wide as they need to be.
console = Console(emoji=False, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, emoji=False)

SettingsFile = Annotated[str, typer.Option("--settings", metavar="FILE", help="TOML file with the settings.")]
RunDate = Annotated[
    str | None, typer.Option("--run-date", metavar="DATE", help="The night, such as 2026-11-22; today if left out.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as model.epochs=5; repeat as needed."),
]
RunId = Annotated[
    str | None,
    typer.Option("--run-id", metavar="ID", help="The run to work on; the date's unfinished run if left out."),
]
Force = Annotated[
    str | None,
    typer.Option("--force", metavar="REASON", help="Publish whatever the audit finds; the reason stays with the run."),
]
MakeCurrent = Annotated[
    bool, typer.Option("--make-current", help="Point readers at this run even if a newer run date is current.")
]


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Print a known failure as one line and end with its exit code; show where an unknown one came from."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except RecsysError as error:
            if error.is_unexpected:
                traceback.print_exception(error.__cause__)
            errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from error

    return run


@app.command("run")
@_reported
def run_night(
    settings: SettingsFile,
    run_date: RunDate = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID", help="Go on with this run after its last finished step.")
    ] = None,
    make_current: MakeCurrent = False,
    force: Force = None,
) -> None:
    """Run the whole night: ingest, learn, recommend, audit, publish."""
    loaded, date = _with_force(load_settings(settings, overrides or []), force), parse_run_date(run_date)
    with open_night(loaded, date, console, resume, make_current=make_current) as night:
        nightly.run(night)
        print_summary(night.storage, console)


def _with_force(settings: Settings, reason: str | None) -> Settings:
    return settings if reason is None else with_changes(settings, {"audit": {"force": reason}})


def _add_step(step: Step) -> None:
    @_reported
    def command(
        settings: SettingsFile, run_date: RunDate = None, overrides: Overrides = None, run_id: RunId = None
    ) -> None:
        loaded, date = load_settings(settings, overrides or []), parse_run_date(run_date)
        with open_night(loaded, date, console, run_id, is_new=step is nightly.STEPS[0]) as night:
            nightly.run_again(step, night)

    app.command(step.name, help=f"Run one step: {step.sentence}")(command)


for _step in nightly.STEPS:
    _add_step(_step)


@app.command("publish")
@_reported
def publish(
    settings: SettingsFile,
    run_date: RunDate = None,
    overrides: Overrides = None,
    run_id: RunId = None,
    make_current: MakeCurrent = False,
) -> None:
    """Publish a run whose steps have all finished: manifest, then pointer."""
    loaded, date = load_settings(settings, overrides or []), parse_run_date(run_date)
    with open_night(loaded, date, console, run_id, is_new=False, make_current=make_current) as night:
        nightly.run_publish(night)


@app.command("list-runs")
@_reported
def list_runs(settings: SettingsFile, overrides: Overrides = None) -> None:
    """List all runs: which are published, which one readers see."""
    print_runs(load_settings(settings, overrides or []), console)


@app.command("rollback")
@_reported
def rollback(
    settings: SettingsFile,
    run_id: Annotated[
        str | None, typer.Argument(help="Run to go back to; the one published before if left out.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Point readers at an earlier published run."""
    roll_back(load_settings(settings, overrides or []), run_id, console)


@app.command("clean")
@_reported
def clean(
    settings: SettingsFile,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    overrides: Overrides = None,
) -> None:
    """Remove the runs that storage.keep_runs and storage.keep_days do not keep, as each night does at its end."""
    clean_up(load_settings(settings, overrides or []), is_dry, console)


@app.command("forget")
@_reported
def forget_a_user(
    settings: SettingsFile,
    user: Annotated[str, typer.Option("--user", metavar="ID", help="External id of the user.")],
    overrides: Overrides = None,
) -> None:
    """Forget a user: stores lose their lists, no later night reads their rows, runs that hold them go after it."""
    forget(load_settings(settings, overrides or []), user, console)


@app.command("show")
@_reported
def show(
    settings: SettingsFile,
    user: Annotated[str, typer.Option("--user", metavar="ID", help="External id of the user.")],
    overrides: Overrides = None,
) -> None:
    """Show the published list of a user."""
    print_lists(load_settings(settings, overrides or []), user, console)


@app.command("export")
@_reported
def export(
    settings: SettingsFile,
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="The store, as [exports.NAME] names it.")],
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="ID", help="A published run; the current one if left out.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Export the published lists to a store that serves them."""
    export_to(load_settings(settings, overrides or []), to, run_id, console)


@app.command("plan")
@_reported
def plan(
    settings: SettingsFile,
    users: Annotated[int | None, typer.Option("--users", min=1, help="Users; counted if left out.")] = None,
    items: Annotated[int | None, typer.Option("--items", min=1, help="Items; counted if left out.")] = None,
    interactions: Annotated[
        int | None, typer.Option("--interactions", min=1, help="User-item pairs; counted if left out.")
    ] = None,
    cores: Annotated[
        int | None, typer.Option("--cores", min=1, help="Cores of the cluster; those of this session if left out.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Say what a night would take, and refuse what cannot fit: shards, tasks, bytes, memory, time."""
    print_plan(load_settings(settings, overrides or []), (users, items, interactions), cores, console)


@app.command("advise")
@_reported
def advise(settings: SettingsFile, overrides: Overrides = None) -> None:
    """Look at the data and say which models suit it, why, and with which settings."""
    print_advice(load_settings(settings, overrides or []), console)


@app.command("compare")
@_reported
def compare(
    settings: SettingsFile,
    models: Annotated[
        str | None,
        typer.Option(
            "--models", metavar="NAMES", help="Such as embedding,ease,hybrid,softmax; all that fit if left out."
        ),
    ] = None,
    users: Annotated[int, typer.Option("--users", min=2, help="About how many users to compare on.")] = 5_000,
    run_date: RunDate = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    overrides: Overrides = None,
) -> None:
    """Train models on a sample of the users, in a temporary folder, and print how they rank and what they take."""
    loaded, date = load_settings(settings, overrides or []), parse_run_date(run_date)
    names = [name.strip() for name in (models or "").split(",") if name.strip()]
    found = compare_models(loaded, names, users, date, nightly.STEPS, errors)
    print_comparison(found, console, as_json)


@app.command("tune")
@_reported
def tune(
    settings: SettingsFile,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials in all; tune.trials if left out.")
    ] = None,
    users: Annotated[
        int | None, typer.Option("--users", min=2, help="About how many users to try on; tune.users if left out.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", metavar="FILE", help="Where trials are kept, to go on after a kill; beside the output."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE", help="The tuned settings; SETTINGS.tuned.toml if left out."),
    ] = None,
    run_date: RunDate = None,
    overrides: Overrides = None,
) -> None:
    """Search for better values of the model's settings, on samples of the users, and write settings with the best."""
    loaded, date = load_settings(settings, overrides or []), parse_run_date(run_date)
    given = {key: value for key, value in (("trials", trials), ("users", users)) if value is not None}
    loaded = with_changes(loaded, {"tune": given})
    path, journal = output_paths(settings, output, storage)
    metric = loaded.tune.measured
    tuned = tune_model(loaded, journal, date, nightly.STEPS, errors, lambda trial: print_trial(trial, metric, errors))
    print_tuned(tuned, console)
    content = file_content(settings, overrides or [], sections_of(tuned.changes))
    write_settings(path, content, f"{settings}, tuned: {gain_of(tuned)}")
    print_line(f"Written: {path}. To use it: recsys-spark run --settings {path}", console)


@app.command("predict")
@_reported
def predict(
    settings: SettingsFile,
    pairs: Annotated[str, typer.Option("--pairs", metavar="FILE", help="CSV or Parquet with user_id and item_id.")],
    output: Annotated[
        str | None, typer.Option("--output", metavar="FOLDER", help="Write Parquet here instead of printing CSV.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Predict given user-item pairs with the published model."""
    predict_to(load_settings(settings, overrides or []), pairs, output, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give its exit code."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="recsys-spark")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
