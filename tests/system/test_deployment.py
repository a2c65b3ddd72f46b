"""What an installation is made of fits together: the compose file, what `deploy/prepare` makes, the image, the package,
and the pages that tell of them. No container runs here."""

import asyncio
import re
import shutil
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import visavis
from supervision.config import load

ROOT = Path(visavis.__file__).resolve().parent
NAMES = ("example.net", "https://matrix.example.net", "https://visavis.example.net")
PACKED = ("bot", "bridge", "embedded", "locales", "migrations", "supervision", "web")
AT_WORK = sorted(set(PACKED) - {"embedded"})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that an operator begins with."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("local*"))
    shutil.copy(ROOT / "config.example.yaml", tmp_path)
    return tmp_path


async def prepare(checkout: Path, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        str(checkout / "deploy/prepare"), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    return process.returncode or 0, err.decode()


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


async def test_what_is_prepared_can_be_loaded_and_fits_together(checkout: Path) -> None:
    assert await prepare(checkout, *NAMES) == (0, "")
    local = checkout / "deploy/local"
    config = load(local / "config.yaml", environment={"VISAVIS_DATABASE__OWNER_URL_FILE": str(local / "owner_url")})
    assert config.matrix.bot == "@visavis:example.net"
    assert config.web.base_url == NAMES[2]
    assert (config.web.listen, config.web.trusted_proxies) == ("0.0.0.0", 1)  # noqa: S104  # within its container
    assert "CHANGE-ME" not in (local / "config.yaml").read_text()

    def secret(name: str) -> str:
        return (local / name).read_text().strip()

    database, owner = config.database.url.get_secret_value(), config.database.owner_url
    assert database == f"postgresql+asyncpg://visavis_app:{secret('app_password')}@postgresql:5432/visavis"
    assert owner is not None
    assert owner.get_secret_value() == (
        f"postgresql+asyncpg://visavis_owner:{secret('owner_password')}@postgresql:5432/visavis"
    )
    assert read(local / "synapse.yaml")["database"]["args"]["password"] == secret("synapse_password")
    assert read(local / "synapse.yaml")["public_baseurl"] == f"{NAMES[1]}/"
    assert config.matrix.as_token is not None
    assert read(local / "visavis-registration.yaml")["as_token"] == config.matrix.as_token.get_secret_value()

    passwords = {secret(f"{role}_password") for role in ("postgres", "owner", "app", "synapse")}
    assert len(passwords) == 4
    assert {len(password) for password in passwords} == {64}
    assert stat.S_IMODE(local.stat().st_mode) == 0o700


async def test_what_is_prepared_is_never_made_anew(checkout: Path) -> None:
    assert await prepare(checkout, "example.net") == (
        2,
        "usage: deploy/prepare SERVER_NAME MATRIX_URL DASHBOARD_URL\n",
    )
    assert (await prepare(checkout, "example.net|d", *NAMES[1:]))[0] == 2
    assert not (checkout / "deploy/local").exists()
    await prepare(checkout, *NAMES)
    before = texts(checkout / "deploy/local")
    assert await prepare(checkout, *NAMES) == (
        1,
        "deploy/prepare: deploy/local is there already; nothing was changed.\n",
    )
    assert texts(checkout / "deploy/local") == before


async def test_the_registration_is_the_one_that_init_writes(checkout: Path, tmp_path: Path) -> None:
    await prepare(checkout, *NAMES)
    prepared = read(checkout / "deploy/local/visavis-registration.yaml")
    written = visavis.registration("as", "hs")
    assert {**prepared, "as_token": "as", "hs_token": "hs"} == written


async def test_the_compose_file_names_what_exists(checkout: Path) -> None:
    await prepare(checkout, *NAMES)
    compose = read(ROOT / "docker-compose.yml")
    secrets = {name: Path(secret["file"]) for name, secret in compose["secrets"].items()}
    mounts = [
        volume.partition(":")[0] for service in compose["services"].values() for volume in service.get("volumes", ())
    ]
    files = {Path(mount) for mount in mounts if mount.startswith("./")} | set(secrets.values())
    assert [path for path in files if not (checkout / path).is_file()] == []
    assert {mount for mount in mounts if not mount.startswith("./")} == set(compose["volumes"])
    used = {name for service in compose["services"].values() for name in service.get("secrets", ())}
    assert used == set(secrets)
    holders = {name for name, service in compose["services"].items() if "owner_url" in service.get("secrets", ())}
    assert holders == {"migrate"}
    script = (ROOT / "deploy/postgresql/databases.sh").read_text()
    assert set(re.findall(r"/(\w+_password)\"", script)) | {"postgres_password"} == set(
        compose["services"]["postgresql"]["secrets"]
    )


def test_the_image_holds_every_part_that_runs() -> None:
    copied = re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(copied) == AT_WORK
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(kept) == sorted([*AT_WORK, "LICENSE", "config.example.yaml", "requirements.txt", "visavis.py"])


def test_the_package_holds_every_file_that_is_no_module() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packed = {
        path
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package).glob(pattern)
        if path.is_file()
    }
    present = {path for package in PACKED for path in (ROOT / package).rglob("*") if path.is_file()}
    present = {path for path in present if "__pycache__" not in path.parts}
    assert {path for path in present if path.suffix != ".py"} - packed == set()
    assert [*settings["data-files"].values()] == [["config.example.yaml"]]


def test_every_link_of_the_pages_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert len(pages) > 15
    missing = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in [*re.findall(r"\]\(([^)]+)\)", text), *re.findall(r'(?:src|srcset)="([^"]+)"', text)]:
            path, _, place = target.partition("#")
            if "://" in target:
                continue
            found = page.parent / path if path else page
            if not found.exists() or (place and place not in anchors(found)):
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can name, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
