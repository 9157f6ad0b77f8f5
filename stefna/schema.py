"""What the API's description says beside what can be read off the views: who calls, what may go wrong, and sign-in."""

from typing import Any

from allauth.headless.spec.internal.schema import get_schema
from drf_spectacular.extensions import OpenApiAuthenticationExtension

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable; made for programs.", "example": "preset_unavailable"},
        "detail": {"type": "string", "description": "A sentence that may be shown."},
        "retryable": {"type": "boolean"},
        "request_id": {"type": "string"},
        "retry_after": {"type": "integer", "description": "Seconds; also in the Retry-After header."},
        "resets_at": {"type": "string", "format": "date-time"},
        "errors": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
    },
}
EXAMPLE = {
    "type": "/api/docs/#preset_unavailable",
    "title": "Conflict",
    "status": 409,
    "code": "preset_unavailable",
    "detail": "This look is no longer available. Please pick another one.",
    "retryable": False,
    "request_id": "0f8fad5bd9cb469fa16570867728950e",
}
LARGEST_OF_OURS = 2_147_483_646
ALWAYS = (400, 401, 403, 404, 405, 429, 500, 503)
WITH_BODY = (409, 411, 413, 415, 422)


class AppSessionScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.AppSession"
    name = ["sessionToken", "appKey"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {"type": "http", "scheme": "bearer", "description": "The session token; X-Session-Token works as well."},
            {"type": "apiKey", "in": "header", "name": "X-App-Key"},
        ]

    def get_security_requirement(self, auto_schema: Any) -> dict[str, list[Any]]:
        return {"sessionToken": [], "appKey": []}


class PageSessionScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.PageSession"
    name = "pageSession"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "With X-CSRFToken."}


def add_problems(result: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Describe what every operation may answer when something is wrong."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    error = {
        "description": "A problem (RFC 9457).",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "example": EXAMPLE}
        },
    }
    for path, operations in result["paths"].items():
        if not path.startswith("/api/v1"):
            continue
        for method, operation in operations.items():
            statuses = ALWAYS + (WITH_BODY if method in ("post", "patch", "put", "delete") else ())
            for status in statuses:
                operation["responses"].setdefault(str(status), error)
    return result


def forget_the_database(result: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Take out limits that are the database's of the moment: the description is of the API."""

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            for name in ("maximum", "minimum"):
                if abs(node.get(name) or 0) > LARGEST_OF_OURS:
                    del node[name]
                    node.pop("format", None)
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            visit(inner)

    visit(result)
    return result


def add_sign_in(result: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Merge in allauth's description of signing up and in, as the app client has it."""
    theirs = get_schema()
    for path, found in theirs["paths"].items():
        # There are no tokens but the session's, and no telephone numbers.
        if "/app/" not in path or "/tokens/" in path or "/phone" in path:
            continue
        shared = found.pop("parameters", [])
        result["paths"][path] = found
        for method, operation in found.items():
            operation["parameters"] = [*shared, *operation.get("parameters", [])]
            words = path.partition("/app/")[2].replace("{", "").replace("}", "").replace("/", "_")
            operation.setdefault("operationId", f"{words}_{method}".removeprefix("v1_"))
    for kind, found in theirs.get("components", {}).items():
        result["components"].setdefault(kind, {})
        for name, component in found.items():
            result["components"][kind].setdefault(name, component)
    return result
