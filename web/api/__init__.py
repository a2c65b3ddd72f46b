"""The API: the same acts as the pages', for programs, in JSON. `web.openapi` has the table of its routes."""
