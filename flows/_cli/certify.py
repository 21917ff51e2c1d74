"""``certify``: prove a pipeline idempotent."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click

from flows._cli._columns import aligned, indented
from flows._cli._verb import Asked, name_argument, overrides, sets_option, verb
from flows._secrets import redact

if TYPE_CHECKING:
    from flows._certify.trials import Certificate, Trial

_SEEDS = 10_000


@verb("certify")
@name_argument
@click.option(
    "--kills",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Kill N runs at random moments.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Take N rows of the source at most.",
)
@click.option("--seed", type=int, metavar="N", help="Try the same moments and the same order again.")
@sets_option
def command(asked: Asked, name: str, *, kills: int, limit: int, seed: int | None, sets: list[str]) -> int:
    """Prove that the pipeline NAME can be run again, whatever happens to a run.

    Its rows are read once. A scratch copy of its target, beside the real one, is loaded with them again and again:
    twice, by runs that are killed in every stage and at random moments, with batches in another order and batches
    that come twice, with a target that fails while it commits. Each time the target, the state, the quarantine and
    the ledger are compared with those of a run that went well. The real target is not touched, and the copy is removed.
    """
    from flows._certify.bench import Wanted  # noqa: PLC0415 - a mistyped option is not worth half a second
    from flows._certify.trials import certify  # noqa: PLC0415 - as above

    asked.facts = {"pipeline": name, "held": False}
    pipeline = asked.pipeline(name, sets)
    seed = secrets.randbelow(_SEEDS) if seed is None else seed
    wanted = Wanted(str(asked.file.absolute()), overrides(name, sets), pipeline, limit, kills, seed)

    def tell(trial: Trial) -> None:
        click.echo(redact(f"{name}: {trial.name}: {trial.verdict} ({trial.seconds:.1f} s)"), err=True)

    certificate = certify(wanted, tell)
    asked.answer(certificate.as_json(), redact(_text(certificate)))
    return 0 if certificate.held else 1


def _text(certificate: Certificate) -> str:
    """What was tried on what, every trial, and the verdict in one sentence."""
    name = certificate.pipeline
    table = aligned((trial.name, trial.verdict, trial.detail) for trial in certificate.trials)
    lines = [
        f"{name}: {certificate.rows:,} rows, {certificate.kills} kills, seed {certificate.seed}",
        "",
        indented(table),
        "",
    ]
    lines += [f"{name}: {note}" for note in certificate.notes]
    tried, broken = certificate.tried, len(certificate.broken)
    if certificate.held:
        return "\n".join([*lines, f"{name} is idempotent: {tried} of {tried} trials held."])
    lines.append(f"{name} is not proved idempotent: {broken} of {tried} trials did not hold.")
    return "\n".join([*lines, *certificate.advice])
