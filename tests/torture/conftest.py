"""How many faults are tried, what they are drawn from, and the table of what became of them.

Each fault that is tried ends in one of three ways. Survived: the result is the right one, as if nothing had happened.
Detected: one message names what is wrong and the way out, and nothing that was finished is gone. Lost: anything else, a
wrong result, a silent one, a traceback, or work that is gone; then the test fails.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

OUTCOMES = ("survived", "detected", "lost")

TABLE = re.compile(r"(?<=<!-- faults -->\n).*?(?=<!-- end of faults -->)", re.DOTALL)
"""Where the table stands in docs/pages/reliability.md."""


@dataclass(frozen=True)
class Profile:
    """How hard to try."""

    name: str
    seed: int

    def trials(self, *, short: int, long: int) -> int:
        """How many faults to try."""
        return long if self.name == "long" else short

    def random(self, *what: int) -> np.random.Generator:
        """A generator of its own for each thing that is drawn, so that a trial does not hang on those before it."""
        return np.random.default_rng((self.seed, *what))


@dataclass
class Ledger:
    """What became of the faults that a test tried."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    def survived(self, fault: str) -> None:
        """The result is right, as if nothing had happened."""
        self.counts[fault, "survived"] += 1

    def detected(self, fault: str) -> None:
        """One message says what is wrong and how to go on, and nothing finished is gone."""
        self.counts[fault, "detected"] += 1

    def lost(self, fault: str, why: str) -> None:
        """Anything else. The test goes on, and fails at its end."""
        self.counts[fault, "lost"] += 1
        self.losses.append(f"{fault}: {why}")

    def judge(self, fault: str, *, wrong: str, refused: bool) -> None:
        """Count a fault as lost where something is wrong, else as detected or survived."""
        if wrong:
            self.lost(fault, wrong)
        elif refused:
            self.detected(fault)
        else:
            self.survived(fault)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.torture)


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest) -> Profile:
    """Short in the test suite, long by `make torture`."""
    return Profile(request.config.getoption("--torture"), request.config.getoption("--torture-seed"))


@pytest.fixture
def ledger(request: pytest.FixtureRequest, profile: Profile) -> Iterator[Ledger]:
    """Counts the faults of a test for the table; whatever was lost fails the test."""
    kept = Ledger()
    yield kept
    request.node.user_properties += [("fault", [*key, n]) for key, n in kept.counts.items()]
    if kept.losses:
        shown = "\n".join(kept.losses[:20])
        pytest.fail(f"{len(kept.losses)} lost with seed {profile.seed}:\n{shown}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what became of the faults, and renew the table where one is asked for."""
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
    """What became of each fault, added up over the tests; each test's last report carries its counts."""
    counts: dict[str, Counter[str]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) == "teardown":
            for fault, outcome, n in (value for name, value in report.user_properties if name == "fault"):
                counts.setdefault(fault, Counter())[outcome] += n
    return counts


def _table(counts: dict[str, Counter[str]]) -> str:
    """Markdown: a row for each fault, by name, and their sum."""
    total = sum(counts.values(), Counter[str]())
    rows = [*sorted(counts.items()), ("**all**", total)]
    lines = [f"| {fault} | {n.total()} | {' | '.join(str(n[o]) for o in OUTCOMES)} |" for fault, n in rows]
    return "\n".join([f"| fault | tried | {' | '.join(OUTCOMES)} |", "|---|--:|--:|--:|--:|", *lines]) + "\n"
