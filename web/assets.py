"""Static files under names that change with their content, so that browsers may keep them for ever."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    path: str
    body: bytes
    content_type: str


def _load() -> dict[str, Asset]:
    found = {}
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in TYPES:
            body = file.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:12]
            found[file.name] = Asset(f"/static/{file.stem}.{digest}{file.suffix}", body, TYPES[file.suffix])
    return found


ASSETS = _load()


def asset(name: str) -> str:
    """The path of a static file by its plain name."""
    return ASSETS[name].path


def _serve(served: Asset) -> web.RouteDef:
    async def handle(request: web.Request) -> web.Response:
        response = web.Response(body=served.body, content_type=served.content_type, charset="utf-8")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response

    return web.get(served.path, handle)


ROUTES = [_serve(served) for served in ASSETS.values()]
