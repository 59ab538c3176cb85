"""The number and the seed of the faults that are tried, and the table of their outcomes.

Every trial of a fault has one of three outcomes. Survived: the result is correct, as if nothing had happened. Detected:
one message names the problem and the way out, and finished work is kept. Lost: anything else, such as a wrong result, a
silent failure, a traceback or lost work; then the test fails.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

OUTCOMES = ("survived", "detected", "lost")

TABLE = re.compile(r"(?<=<!-- faults -->\n).*?(?=<!-- end of faults -->)", re.DOTALL)
"""The table in docs/pages/reliability.md."""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.torture)


@dataclass(frozen=True)
class Profile:
    """How many faults to try, and their seed."""

    name: str
    seed: int

    def trials(self, *, short: int, long: int) -> int:
        """The number of trials; a test that has none in this profile is skipped."""
        n_trials = long if self.name == "long" else short
        if not n_trials:
            pytest.skip("in the long profile only")
        return n_trials

    def random(self, *numbers: int) -> np.random.Generator:
        """A generator for these numbers, so that no trial depends on the trials before it."""
        return np.random.default_rng((self.seed, *numbers))


@dataclass
class Ledger:
    """The outcomes of the faults that a test tries."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    def survived(self, fault: str) -> None:
        """Count a correct result."""
        self.counts[fault, "survived"] += 1

    def detected(self, fault: str) -> None:
        """Count a message that names the problem and the way out."""
        self.counts[fault, "detected"] += 1

    def lost(self, fault: str, why: str) -> None:
        """Count anything else. The test continues, and fails at its end."""
        self.counts[fault, "lost"] += 1
        self.losses.append(f"{fault}: {why}")

    def judge(self, fault: str, wrong: object, *, refused: bool = False) -> None:
        """Count a trial as lost if something is wrong, else as detected or survived."""
        if wrong:
            self.lost(fault, str(wrong))
        elif refused:
            self.detected(fault)
        else:
            self.survived(fault)

    def judge_all(self, faults: Sequence[str], wrong: str) -> None:
        """Count a series of faults in one store or run, whose result is known only at its end."""
        assert faults or not wrong, f"no fault was tried, but: {wrong}"
        for fault in faults:
            self.judge(fault, wrong)


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest) -> Profile:
    """Short in the test suite, long in `make torture`."""
    return Profile(request.config.getoption("--torture"), request.config.getoption("--torture-seed"))


@pytest.fixture
def ledger(request: pytest.FixtureRequest, profile: Profile) -> Iterator[Ledger]:
    """Counts the outcomes of a test for the table; the test fails if anything is lost."""
    ledger = Ledger()
    yield ledger
    request.node.user_properties += [("fault", [*key, n]) for key, n in ledger.counts.items()]
    if ledger.losses:
        first = "\n".join(ledger.losses[:20])
        pytest.fail(f"{len(ledger.losses)} lost with seed {profile.seed}:\n{first}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write it into the file that --torture-table names."""
    counts = _counted(terminalreporter)
    if not counts:
        return
    table = _table(counts)
    name, seed = config.getoption("--torture"), config.getoption("--torture-seed")
    terminalreporter.section(f"faults tried, {name} profile, seed {seed}")
    terminalreporter.write(table)
    file: Path | None = config.getoption("--torture-table")
    if file is not None:
        text = file.read_text()
        assert TABLE.search(text), f"{file} has no lines <!-- faults --> and <!-- end of faults -->"
        file.write_text(TABLE.sub(lambda _: table, text))


def _counted(terminalreporter: pytest.TerminalReporter) -> dict[str, Counter[str]]:
    """The outcomes of each fault, summed over the tests; the last report of each test has its counts."""
    counts: dict[str, Counter[str]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) == "teardown":
            for fault, outcome, n in (value for name, value in report.user_properties if name == "fault"):
                counts.setdefault(fault, Counter())[outcome] += n
    return counts


def _table(counts: dict[str, Counter[str]]) -> str:
    """Markdown: a row for each fault, sorted by name, and the total."""
    total = sum(counts.values(), Counter[str]())
    rows = [*sorted(counts.items()), ("**all**", total)]
    lines = [f"| {fault} | {n.total()} | {' | '.join(str(n[o]) for o in OUTCOMES)} |" for fault, n in rows]
    return "\n".join([f"| fault | tried | {' | '.join(OUTCOMES)} |", "|---|--:|--:|--:|--:|", *lines]) + "\n"
