"""`crossbus doctor`: what is the same for every adapter, and the command itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli_here import here
from tests.doctoring import Bad, bad, examined, of
from tests.server_process import Server
from tests.test_cli import crossbus, environment, refused

from crossbus.adapter import Adapter, Finding
from crossbus.checks import Check, Difference, Result, State, clock_result
from crossbus.cli.doctor_report import report
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.connections import check_capabilities
from crossbus.doctor import PORTABLE, Examination, catalog
from crossbus.doctor.found import of_finding
from crossbus.doctor.machine import packages, python
from crossbus.errors import UnsupportedError
from crossbus.filters import exact
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic

ORDERS = Topic("orders")
BILLING = Subscription(topic=ORDERS, name="billing")
FILE = """
default_profile = "desk"
[profiles.desk]
url = "{url}"
[profiles.cloud]
adapter = "eventbridge"
region = "nowhere"
[topics.orders]
[topics.invoices]
profile = "other"
[profiles.other]
url = "local:other"
[subscriptions."orders/billing"]
"""
PROGRAM = """
from crossbus import Bus, exact
bus = Bus()
@bus.subscribe("orders", "billing", filter=exact(type="com.acme.placed"))
def bill(order: dict) -> None:
    raise SystemExit("nothing is handled")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: Server) -> Path:
    (tmp_path / "crossbus.toml").write_text(FILE.format(url=server.url))
    (tmp_path / "shop.py").write_text(PROGRAM)
    return tmp_path


# --- declarations -----------------------------------------------------------------------------------------------------


def test_a_capability_that_is_refused_is_said_as_at_start(server: Server) -> None:
    wanted = BILLING.replace(ordered=True, lease=0.5)
    configuration = load(f"eventgrid:?endpoint=http://127.0.0.1:{server.port}")
    line = of(examined(configuration, wanted), "capability")
    profile = configuration.default
    adapter = adapter_class(profile.scheme)(profile, clock=SystemClock())
    with pytest.raises(UnsupportedError) as caught:
        check_capabilities(adapter, wanted)
    assert (
        line.text
        == f"{caught.value}; subscription orders/billing: a lease of 0.5 s; eventgrid allows 60 to 300 s"
    )


def test_an_external_subscription_with_a_filter_says_what_becomes_of_the_others(server: Server) -> None:
    theirs = BILLING.replace(external=True, filter=exact(type="a"))
    found = examined(server.url, theirs)
    assert Bad("wrong", "orders/billing", "mismatch") in bad(found)
    assert "on_mismatch" in of(found, "mismatch").text
    assert Bad("wrong", "orders/billing", "mismatch") not in bad(
        examined(server.url, theirs.replace(on_mismatch="drop"))
    )


# --- this machine -----------------------------------------------------------------------------------------------------


def test_a_python_that_is_too_old() -> None:
    assert python((3, 10, 4)) == Result("python", "wrong", "this is Python 3.10.4; crossbus needs 3.11")
    assert python().state == "ok"


def test_packages_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.0.3" if name == "boto3" else version(name))
    found = examined("eventbridge:?region=eu-west-1", BILLING)
    assert bad(found) == [Bad("wrong", "", "packages"), Bad("unknown", "", "looked")]
    assert of(found, "packages").text.startswith("boto3 1.0.3 is installed; the eventbridge adapter needs 1.")
    assert of(found, "packages").mend == "pip install --upgrade 'crossbus[aws]'"

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    (result,) = packages("pubsub")
    assert (result.state, result.text) == ("wrong", "google-cloud-pubsub is not installed")
    assert packages("local") == []
    assert packages("a-third-party's") == []


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    found = examined("eventbridge:?region=eu-west-1", BILLING)
    assert bad(found) == [Bad("wrong", "", "packages"), Bad("unknown", "", "looked")]
    assert "pip install 'crossbus[aws]'" in of(found, "packages").text


def test_a_clock_is_read_as_http_writes_it() -> None:
    assert clock_result(None, 0.0) == clock_result("soon", 0.0) == []
    (result,) = clock_result("Thu, 26 Nov 2026 15:00:00 GMT", 1795705200.0 + 121)
    assert (result.check, result.state) == ("clock", "wrong")
    (result,) = clock_result("Thu, 26 Nov 2026 15:00:00 GMT", 1795705200.0 - 119)
    assert result.state == "ok"


# --- the frame --------------------------------------------------------------------------------------------------------


def test_an_adapter_without_checks_of_its_own_is_still_examined() -> None:
    """A third party's `inspect` may say only that something differs, or by a check that nobody lists."""
    plain = Finding("subscription", "orders/billing", "queue", "differs", "lease 30 s, not 60 s")
    assert list(of_finding({}, plain, BILLING)) == [
        Result("declaration", "wrong", "lease 30 s, not 60 s", "orders/billing")
    ]
    unknown = Finding.of("subscription", "orders/billing", "queue", [Difference("colour", "it is red")])
    assert [one.check for one in of_finding({}, unknown, BILLING)] == ["declaration"]
    missing = Finding("topic", "orders", "bus orders", "missing")
    assert [one.text for one in of_finding({}, missing, ORDERS)] == ["bus orders is missing"]


@pytest.mark.parametrize("scheme", ["local", "local+http", "eventbridge", "pubsub", "eventgrid"])
def test_every_check_says_what_why_and_how(scheme: str) -> None:
    checks = adapter_class(scheme).checks
    assert checks
    assert not set(checks) & set(PORTABLE), "a name means one thing"
    for name, check in catalog(checks).items():
        assert isinstance(check, Check)
        assert all((check.what, check.why, check.mend, check.proved)), name
        assert (name in PORTABLE) <= (not check.by_inspect), name
        fields = set(re.findall(r"\{(\w*)\}", check.mend))
        assert fields <= {"provision", "extra"}, name
    inspected = {name for name, check in checks.items() if check.by_inspect}
    assert inspected
    assert issubclass(adapter_class(scheme), Adapter)


# --- the command ------------------------------------------------------------------------------------------------------


def doctor(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return here("doctor", *words, cwd=folder)


def test_a_program_from_missing_to_well(folder: Path) -> None:
    with Server() as own:
        (folder / "crossbus.toml").write_text(FILE.format(url=own.url))
        done = crossbus("doctor", "shop:bus", cwd=folder)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.isascii(), "plain in a pipe"
        lines = done.stdout.splitlines()
        assert "    wrong   subscription: subscription orders/billing is missing" in lines
        assert "            mend: crossbus provision shop:bus" in lines
        assert lines[-1] == f"{len(of_json(folder))} checked: 7 well, 1 warning, 2 wrong"
        # What it prints is what mends it.
        (mend,) = {one.partition("mend: ")[2] for one in lines if "mend: crossbus" in one}
        mended = crossbus(*mend.split()[1:], "--yes", cwd=folder)
        assert mended.returncode == 0, mended.stderr
        done = doctor(folder, "shop:bus")
        assert (done.returncode, done.stderr) == (0, "")
        assert "wrong" not in done.stdout
        assert done.stdout.splitlines()[-1].endswith(" well")


def of_json(folder: Path, *words: str) -> list[dict[str, Any]]:
    done = doctor(folder, "shop:bus", "-o", "json", *words)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_json_is_an_object_for_each_check(folder: Path) -> None:
    found = of_json(folder)
    assert {one["state"] for one in found} <= {"ok", "warning", "wrong", "unknown"}
    assert set(found[0]) == {
        *("profile", "about", "name", "resource", "check", "state", "what", "text"),
        *("why", "mend", "terraform"),
    }
    ok = [one for one in found if one["state"] == "ok"]
    assert all(one["why"] == one["mend"] == "" for one in ok)


def test_lines_are_columns(folder: Path) -> None:
    done = doctor(folder, "shop:bus", "-o", "lines")
    assert {line.count("\t") for line in done.stdout.splitlines()} == {5}
    assert "ok\tdesk\t\tconfiguration\tcrossbus.toml [profiles.desk]\t" in done.stdout.splitlines()


def test_without_a_program_what_the_file_lists_is_examined(folder: Path) -> None:
    done = doctor(folder)
    assert (done.returncode, done.stderr) == (1, "")
    assert "  subscription orders/billing" in done.stdout.splitlines()
    assert "profile other (local:other)" in done.stdout, "where a topic lives elsewhere"
    assert "mend: crossbus provision MODULE:BUS" in done.stdout
    (folder / "crossbus.toml").write_text('default_profile = "m"\n[profiles.m]\nurl = "local:"\n')
    done = doctor(folder)
    assert (
        done.stderr
        == "note: crossbus.toml lists no topic and no subscription; name the program: MODULE:BUS\n"
    )
    assert done.returncode == 0


def test_options_stand_in_what_mends(folder: Path, server: Server) -> None:
    (folder / "crossbus.toml").unlink()
    done = doctor(folder, "shop:bus", "--url", server.url)
    assert f"mend: crossbus provision shop:bus --url {server.url}\n" in done.stdout


def test_a_topic_of_a_profile_that_is_not_there_is_a_finding() -> None:
    lost = Subscription(topic=Topic("orders", profile="finance"), name="billing")
    found = examined("local:", lost)
    assert bad(found) == [Bad("wrong", "", "configuration")]
    assert "profile 'finance'" in of(found, "configuration").text


@pytest.mark.parametrize(
    ("words", "file", "says"),
    [
        ((), "", "no bus is configured"),
        (("--profile", "production"), FILE, "names the profile 'production', which is not in"),
        (("--profile", "cloud"), FILE, "region 'nowhere' is none"),
        ((), "[profiles.x]\nurl = 'locl:'\ndefault_profile = 'x'", "default_profile"),
        ((), "default_profile = 'x'\n[profiles.x]\nurl = 'locl:'", "no adapter is called 'locl'"),
    ],
)
@pytest.mark.parametrize("program", [(), ("shop:bus",)])
def test_what_is_wrong_with_the_configuration_is_a_finding(
    tmp_path: Path, words: tuple[str, ...], file: str, says: str, program: tuple[str, ...]
) -> None:
    (tmp_path / "shop.py").write_text(PROGRAM)
    if file:
        (tmp_path / "crossbus.toml").write_text(file.format(url="local:"))
    done = doctor(tmp_path, *program, *words, "-o", "json")
    assert (done.returncode, done.stderr) == (1, "")
    wrong = [one for one in map(json.loads, done.stdout.splitlines()) if one["state"] == "wrong"]
    assert [one["check"] for one in wrong] == ["configuration"]
    assert wrong[0]["mend"]
    assert says in wrong[0]["text"]


def test_what_is_no_finding_is_a_mistake_of_usage(folder: Path) -> None:
    refused(doctor(folder, "shp:bus"), "no module 'shp'")
    refused(doctor(folder, "shop:bas"), "no 'bas'")
    refused(doctor(folder, "shop:bus", "--url", "local:", "--profile", "desk"), "--url and --profile")


def test_a_program_that_fails_at_import_is_the_users(folder: Path) -> None:
    (folder / "shop.py").write_text("1 / 0")
    done = doctor(folder, "shop:bus")
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1] == "error: shop cannot be imported: ZeroDivisionError: division by zero"
    )


def test_strict_counts_warnings_and_what_is_unknown(folder: Path) -> None:
    (folder / "shop.py").write_text(PROGRAM.replace('exact(type="com.acme.placed")', "None"))
    (folder / "crossbus.toml").write_text('default_profile = "m"\n[profiles.m]\nurl = "local:"\n')
    assert doctor(folder, "shop:bus", "--strict").returncode == 0
    (folder / "crossbus.toml").write_text(
        'default_profile = "m"\n[profiles.m]\nurl = "local+http://127.0.0.1:9"\n'
    )
    assert doctor(folder, "shop:bus", "--strict").returncode == 1


def test_marks_and_colours_on_a_terminal(folder: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "crossbus", "doctor", "shop:bus"],
        cwd=folder,
        env=environment(PYTHONIOENCODING="utf-8", TERM="xterm", COLUMNS="80"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so that the other end is closed
            break
        if not part:
            break
        output += part
    os.close(ours)
    assert process.wait(60) in (0, 1)
    text = output.decode()
    assert "✓" in text
    assert "\x1b[32m" in text
    assert all(len(line.rstrip("\r")) <= 110 for line in text.splitlines())


def test_one_permission_that_is_missing_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def line(check: str, state: State, text: str) -> Examination:
        return Examination("p", "subscription", "a/b", "q", check, state, "w", text, "why", "mend")

    report([line("x", "unknown", "needs z"), line("y", "unknown", "needs z"), line("k", "wrong", "is l")])
    assert capsys.readouterr().out.splitlines() == [
        "profile p (q)",
        "  subscription a/b (q)",
        "    wrong   k: is l",
        "            why:  why",
        "            mend: mend",
        "    unknown x, y: needs z",
        "            mend: mend",
        "3 checked: 1 wrong, 2 unknown",
    ]
    report([line("x", "warning", "a\x1b[2J\nb"), line("y", "warning", "c")])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "    warning x: a\\x1b[2J\\nb",
        "            why:  why",
        "            mend: mend",
        "    warning y: c",
        "            why:  why",
        "            mend: mend",
        "2 checked: 2 warnings",
    ]


def test_a_closed_pipe_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m crossbus doctor shop:bus -o json | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""


def test_the_page_of_checks_is_current() -> None:
    script = Path(__file__).parent.parent / "scripts" / "gen_checks.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- what mends exists ------------------------------------------------------------------------------------------------

ALL = {
    (scheme, name): check
    for scheme in ("local", "eventbridge", "pubsub", "eventgrid")
    for name, check in catalog(adapter_class(scheme).checks).items()
}
MODULES = Path(__file__).parent.parent / "terraform" / "modules"


def test_the_commands_that_mend_exist() -> None:
    mends = " ".join(check.mend for check in ALL.values()).replace("{provision}", "crossbus provision")
    named = set(re.findall(r"\bcrossbus ((?!doctor\b)[a-z]+)", mends))
    known = set(re.findall(r"^  ([a-z]+) ", crossbus("--help").stdout, re.M))
    assert named >= {"provision", "config", "topology"}
    assert named <= known


def test_the_parts_of_the_terraform_modules_that_mend_exist() -> None:
    """Every line names one of the modules, and one of its variables."""
    for (scheme, name), check in ALL.items():
        if not check.terraform:
            continue
        match = re.fullmatch(r"module (\w+), variable (\w+)(: \w+)?", check.terraform)
        assert match is not None, (scheme, name)
        assert match[1] == scheme, name
        text = "".join(file.read_text("utf-8") for file in (MODULES / scheme).glob("*.tf"))
        assert f'variable "{match[2]}"' in text, (scheme, name)
        assert match[3] is None or match[3][2:] in text, (scheme, name)


@pytest.mark.parametrize(
    ("scheme", "folder"),
    [
        ("eventbridge", "adapters/crossbus_eventbridge"),
        ("pubsub", "adapters/crossbus_pubsub"),
        ("eventgrid", "adapters/crossbus_eventgrid"),
        ("local", "local_broker/crossbus_local"),
    ],
)
def test_every_difference_and_result_belongs_to_a_check(scheme: str, folder: str) -> None:
    known = set(catalog(adapter_class(scheme).checks))
    if scheme == "eventbridge":
        from crossbus_eventbridge.checks import V2

        known |= set(V2)
    source = "".join(file.read_text("utf-8") for file in (Path(__file__).parent.parent / folder).glob("*.py"))
    named = set(re.findall(r'\b(?:Difference|Result)\(\s*"([a-z-]+)"', source))
    assert named
    assert named <= known
