"""A Hugging Face Hub on loopback: the routes that the real client downloads and uploads by, and ways to fail.

The routes are those of huggingface_hub 2.4: file_download.py (resolve), hf_api.py, _commit_api.py and lfs.py (upload).
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_made_up"
DAY = "2026-01-01T00:00:00.000Z"
NAME = re.compile(r"^(?:[\w-]+/)?[\w.-]+$")  # what the Hub takes for a model or a data set
LICENSES = {"apache-2.0", "mit", "unknown", "other"}  # of the 80 that it knows


class HubServer:
    """Repositories by name, each with its commits; ``with HubServer() as hub`` serves them on two ports.

    Large files come from the second port, as they come from another host on the real Hub.
    """

    def __init__(self):
        self.commits = {}  # {repository: {commit: {path: content}}}, the last one is main
        self.private = set()  # repositories that ask for TOKEN
        self.blobs = {}  # {sha256: content} of uploaded large files
        self.lfs = (".safetensors",)  # what is a large file
        self.asked = []  # (method, path, headers, on the second port)
        self.connections = 0
        self.heads = {}  # {path: statuses or "portal" for the next HEADs}
        self.bodies = {}  # {path: functions of the content for the next GETs, or "cut"}

    def __enter__(self):
        self.servers = [_Server(self, second) for second in (False, True)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def commit(self, repo, files):
        """Add a commit of ``files`` {path: content} and return its hash."""
        history = self.commits.setdefault(repo, {})
        digest = hashlib.sha1(f"{repo} {len(history)}".encode())
        for path in sorted(files):
            digest.update(path.encode() + files[path])
        history[digest.hexdigest()] = dict(files)
        return digest.hexdigest()

    def gets(self, path):
        """How often a file's content was asked for."""
        return sum(method == "GET" and asked.endswith(f"/{path}") and second == path.endswith(self.lfs)
                   for method, asked, _, second in self.asked)  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 64

    def __init__(self, hub, second):
        self.hub, self.second = hub, second
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self):
        self.hub.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status=200, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        headers = {"Content_Length": len(content), **headers}
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status, code, **headers):
        self.answer(status, b"", X_Error_Code=code, X_Error_Message=code, **headers)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def handle_any(self):
        self.hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers, self.server.second))
        content = self.body()
        if self.server.second:
            return self.store(path, content)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(*match.groups())
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized")
        return self.api(path, content)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def resolve(self, repo, revision, path):
        hub = self.hub
        if self.command == "HEAD" and hub.heads.get(path):
            status = hub.heads[path].pop(0)
            if status == "portal":
                return self.answer(200, b"<html>log in to this network</html>", Content_Type="text/html")
            if status != 200:
                return self.answer(status)
        allowed = repo not in hub.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo not in hub.commits or not allowed:
            return self.refuse(401, "RepoNotFound")
        if revision not in hub.commits[repo]:
            return self.refuse(404, "RevisionNotFound")
        if path not in hub.commits[repo][revision]:
            return self.refuse(404, "EntryNotFound", X_Repo_Commit=revision)
        content = hub.commits[repo][revision][path]
        if not path.endswith(hub.lfs):
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self.file(path, content, ETag=f'"{etag}"', X_Repo_Commit=revision)
        etag = hashlib.sha256(content).hexdigest()
        return self.answer(
            302,
            Location=f"{hub.storage}/{repo}/{revision}/{path}",
            ETag=f'"{revision}"',
            X_Repo_Commit=revision,
            X_Linked_ETag=f'"{etag}"',
            X_Linked_Size=len(content),
        )

    def file(self, path, content, **headers):
        """A file's content, or what ``bodies`` makes of it, whole or from the byte that Range names."""
        change = self.hub.bodies[path].pop(0) if self.command == "GET" and self.hub.bodies.get(path) else None
        if change == "cut":
            headers["Content_Length"] = len(content)
            self.close_connection = True
            content = content[: len(content) // 2]
        elif change:
            content = change(content)
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start and change is None:
            first, size = int(start[1]), len(content)
            headers["Content_Range"] = f"bytes {first}-{size - 1}/{size}"
            return self.answer(206, content[first:], **headers)
        return self.answer(200, content, **headers)

    def store(self, path, content):
        """The second port: content of large files."""
        if self.command == "PUT":
            digest = hashlib.sha256(content).hexdigest()
            if path != f"/upload/{digest}":
                return self.answer(400)
            self.hub.blobs[digest] = content
            return self.answer(200)
        owner, name, revision, path = path[1:].split("/", 3)
        return self.file(path, self.hub.commits[f"{owner}/{name}"][revision][path])

    def api(self, path, content):
        """What uploading needs."""
        hub = self.hub
        if path.endswith("/commit/main"):
            return self.commit(path, content)
        asked = json.loads(content) if content else {}
        if path == "/api/whoami-v2":
            return self.answer(200, {"type": "user", "name": "someone"})
        if path == "/api/validate-yaml":
            errors = metadata_errors(asked["content"])
            return self.answer(400 if errors else 200, {"errors": [{"message": error} for error in errors]})
        if path == "/api/repos/create":
            repo = f"{asked['organization']}/{asked['name']}"
            known = repo in hub.commits
            hub.commits.setdefault(repo, {})
            if (asked.get("visibility") == "private" or asked.get("private")) and not known:
                hub.private.add(repo)
            return self.answer(409 if known else 200, {"url": f"{hub.endpoint}/{repo}"})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return self.answer(200, {"files": [self.mode(match[1], file["path"]) for file in asked["files"]]})
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            for item in asked["objects"]:
                if item["oid"] not in hub.blobs:
                    item["actions"] = {"upload": {"href": f"{hub.storage}/upload/{item['oid']}"}}
            return self.answer(200, {"transfer": "basic", "objects": asked["objects"]})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", path):
            *_, last = hub.commits[match[1]]
            return self.answer(
                200, {"id": match[1], "sha": last, "lastModified": DAY, "createdAt": DAY, "siblings": []}
            )
        return self.answer(404)

    def mode(self, repo, path):
        """How a file is to be uploaded, and the hash of the one that is there."""
        large = path.endswith(self.hub.lfs)
        now = list(self.hub.commits[repo].values() or [{}])[-1].get(path)
        oid = None
        if now is not None:
            oid = hashlib.sha256(now) if large else hashlib.sha1(b"blob %d\0" % len(now) + now)
        return {
            "path": path,
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
            "oid": oid and oid.hexdigest(),
        }

    def commit(self, path, content):
        repo = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path)[1]
        files = dict(list(self.hub.commits[repo].values() or [{}])[-1])
        for line in content.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        oid = self.hub.commit(repo, files)
        self.answer(200, {"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{oid}", "commitOid": oid, "success": True})


def metadata_errors(readme):
    """What the Hub would refuse in a model card's metadata."""
    found = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    if not found:
        return ["no metadata"]
    facts, errors = yaml.safe_load(found[1]), []
    names = [*facts.get("datasets", []), *filter(None, [facts.get("base_model")])]
    for model in facts.get("model-index", []):
        for result in model["results"]:
            names.append(result["dataset"]["type"])
            if not result["task"]["type"] or not all(item["type"] and "value" in item for item in result["metrics"]):
                errors.append('"model-index" lacks a type or a value')
    errors += [f'"{name}" fails to match the required pattern' for name in names if not NAME.match(name)]
    if facts["license"] not in LICENSES:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    return errors
