#!/usr/bin/env python3
"""A server that answers as the Hugging Face Hub does, for the tests; Python's standard library only.

usage: hub_server.py ROOT [--tls CERTIFICATE KEY]    prints the two ports (of the Hub, of its CDN) and serves until its
                                                     standard input ends

ROOT/repos/OWNER/NAME/COMMIT/...   the files of a data set, or of a model, at a commit (40 hex digits)
ROOT/repos/OWNER/NAME/refs.json    {"branches": {"main": COMMIT}, "tags": {}, "converts": {"parquet": COMMIT}}
ROOT/repos/OWNER/NAME/access.json  {"gated": true, "private": false, "token": "hf_x"}; absent: open to all
ROOT/faults.json                   [{"match": REGEX, "do": WHAT, "times": N, ...}], read anew whenever it changes:
    status  (code, retry_after, error_code)    an answer of that status
    hang    (s)                    nothing is said for so long, then the connection ends
    cut     (after)                the connection ends after so many bytes of the body
    corrupt (at)                   one byte of the body is another
    slow    (chunk, ms)            so many bytes at a time, with a pause between
    whole                          Range is not known
    swap                           another etag
ROOT/requests.jsonl                what was asked: {"host", "method", "path", "range", "token"}

Files of 1000 bytes and more are "large": the Hub redirects to the CDN for them. Lists have 3 entries a page."""

import functools
import hashlib
import json
import os
import re
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE, PAGE, EXPIRED = 1000, 3, "hf_expired"
lock = threading.Lock()


class Faults:
    def __init__(self, path):
        self.path, self.stamp, self.rules = path, None, []

    def take(self, path):
        """The first rule for a path that is not used up."""
        with lock:
            try:
                info = os.stat(self.path)
                stamp = (info.st_mtime_ns, info.st_ino, info.st_size)
            except FileNotFoundError:
                stamp = None
            if stamp != self.stamp:
                self.stamp = stamp
                self.rules = json.load(open(self.path)) if stamp else []
            for rule in self.rules:
                if rule.get("times", 1) > 0 and re.search(rule["match"], path):
                    rule["times"] = rule.get("times", 1) - 1
                    return rule
        return {}


@functools.lru_cache(maxsize=1000)
def digests(path, stamp):
    data = open(path, "rb").read()
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return len(data), oid, hashlib.sha256(data).hexdigest()


def file_facts(path):
    """Its size, git's name for it and its SHA-256."""
    info = os.stat(path)
    return digests(path, (info.st_mtime_ns, info.st_ino, info.st_size))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    root, faults, cdn, scheme = "", None, "", "http"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.serve()

    def do_GET(self):
        self.serve()

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def answer_json(self, value, headers=()):
        self.answer(200, [("Content-Type", "application/json"), *headers], json.dumps(value).encode())

    def refuse(self, status, code, message, headers=()):
        body = json.dumps({"error": message}).encode()
        self.answer(status, [("X-Error-Code", code), ("X-Error-Message", message), *headers], body)

    # ---- what is asked ----

    def serve(self):
        token = self.headers.get("Authorization")
        with lock, open(os.path.join(self.root, "requests.jsonl"), "a") as out:
            seen = {"host": "cdn" if self.server.is_cdn else "hub", "method": self.command, "path": self.path,
                    "range": self.headers.get("Range"), "token": token}
            out.write(json.dumps(seen) + "\n")
        rule = self.faults.take(self.path)
        if rule.get("do") == "status":
            said = [("Retry-After", str(rule["retry_after"]))] if "retry_after" in rule else []
            if "error_code" in rule:
                said.append(("X-Error-Code", rule["error_code"]))
            return self.answer(rule["code"], said, b"trouble")
        if rule.get("do") == "hang":
            self.close_connection = True
            return time.sleep(rule["s"])
        if token == "Bearer " + EXPIRED and not self.server.is_cdn:
            return self.answer(401, [("X-Error-Message", "User Access Token is expired")])
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.server.is_cdn:
            return self.serve_blob(parts, rule)
        if parts[0] == "api" and parts[1:2] in (["datasets"], ["models"]):
            return self.serve_api(parts[1], parts[2:])
        if len(parts) > 4 and parts[2] == "resolve":  # of a model
            return self.serve_resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), rule)
        if parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
            return self.serve_resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]), rule)
        return self.refuse(404, "RepoNotFound", "Repository not found")

    def open_repo(self, name):
        """The folder of a repository that this asker may see, or None: it has been refused."""
        folder = os.path.join(self.root, "repos", name)
        path = os.path.join(folder, "access.json")
        access = json.load(open(path)) if os.path.exists(path) else {}
        token = self.headers.get("Authorization")
        allowed = not access or token == "Bearer " + access.get("token", "")
        if os.path.isdir(folder) and (allowed or access.get("gated")):
            if allowed or "/resolve/" not in self.path:
                return folder
            self.refuse(401 if token is None else 403, "GatedRepo", "Access to this data set is restricted")
        elif token is None:
            self.refuse(401, "RepoNotFound", "Invalid username or password.")
        else:
            self.refuse(404, "RepoNotFound", "Repository not found")
        return None

    def find_commit(self, folder, revision):
        refs = json.load(open(os.path.join(folder, "refs.json")))
        known = {**refs.get("branches", {}), **refs.get("tags", {}),
                 **{"refs/convert/" + name: commit for name, commit in refs.get("converts", {}).items()}}
        commit = known.get(revision, revision)
        if re.fullmatch("[0-9a-f]{40}", commit) and os.path.isdir(os.path.join(folder, commit)):
            return commit
        self.refuse(404, "RevisionNotFound", "Invalid rev id: " + revision)
        return None

    def serve_api(self, kind, parts):
        if not parts:
            wanted = parse_qs(urlsplit(self.path).query).get("search", [""])[0]
            repos = os.path.join(self.root, "repos")
            names = [f"{owner}/{name}" for owner in sorted(os.listdir(repos))
                     for name in sorted(os.listdir(os.path.join(repos, owner)))]
            found = [name for name in names if wanted[:3].lower() in name.lower()]
            return self.answer_json([{"id": name} for name in found])
        name, rest = "/".join(parts[:2]), parts[2:]
        folder = self.open_repo(name)
        if folder is None:
            return None
        if rest == ["refs"]:
            refs = json.load(open(os.path.join(folder, "refs.json")))
            folders = {"branches": "heads", "tags": "tags", "converts": "convert"}
            return self.answer_json({what: [{"name": ref, "ref": f"refs/{folder}/{ref}", "targetCommit": commit}
                                            for ref, commit in refs.get(what, {}).items()]
                                     for what, folder in folders.items()})
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self.find_commit(folder, revision)
        if commit is None:
            return None
        if rest[:1] == ["tree"]:
            return self.serve_tree(kind, name, os.path.join(folder, commit), commit)
        return self.answer_json({"_id": "0", "id": name, "author": name.split("/")[0], "sha": commit, "private": False,
                                 "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0,
                                 "lastModified": "2026-01-01T00:00:00.000Z", "siblings": []})

    def serve_tree(self, kind, name, folder, commit):
        entries = []
        for place, folders, files in os.walk(folder):
            for entry in sorted(folders + files):
                path = os.path.join(place, entry)
                said = {"path": os.path.relpath(path, folder), "type": "file", "size": 0}
                if os.path.isdir(path):
                    said.update(type="directory", oid="0" * 40)
                else:
                    size, oid, sha256 = file_facts(path)
                    said.update(oid=oid, size=size)
                    if size >= LARGE:
                        said["lfs"] = {"oid": sha256, "size": size, "pointerSize": 130}
                entries.append(said)
        entries.sort(key=lambda said: said["path"])
        begin = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        headers = []
        if begin + PAGE < len(entries):
            host = self.headers["Host"]
            url = f"{self.scheme}://{host}/api/{kind}/{name}/tree/{commit}?recursive=True&expand=False"
            headers = [("Link", f'<{url}&cursor={begin + PAGE}>; rel="next"')]
        return self.answer_json(entries[begin:begin + PAGE], headers)

    def serve_resolve(self, name, revision, path, rule):
        folder = self.open_repo(name)
        if folder is None:
            return None
        commit = self.find_commit(folder, revision)
        if commit is None:
            return None
        place = os.path.join(folder, commit, path)
        known = [("X-Repo-Commit", commit)]
        if not os.path.isfile(place):
            return self.refuse(404, "EntryNotFound", "Entry not found", known)
        size, oid, sha256 = file_facts(place)
        if rule.get("do") == "swap":
            oid, sha256 = "1" * 40, "1" * 64
        if size < LARGE:
            return self.send_data(open(place, "rb").read(), oid, rule, known)
        url = f"{self.scheme}://{self.cdn}/{quote(name)}/{commit}/{quote(path)}?signature=secret"
        return self.answer(302, [*known, ("X-Linked-Etag", f'"{sha256}"'), ("X-Linked-Size", str(size)),
                                 ("ETag", f'"{oid}"'), ("Location", url)], b"Found. Redirecting")

    def serve_blob(self, parts, rule):
        place = os.path.join(self.root, "repos", *parts[:2], *parts[2:])
        if not os.path.isfile(place):
            return self.answer(403, [], b"<Error>AccessDenied</Error>")
        return self.send_data(open(place, "rb").read(), file_facts(place)[1][:32], rule, [])

    def send_data(self, data, etag, rule, headers):
        said = [*headers, ("ETag", f'"{etag}"'), ("Accept-Ranges", "bytes")]
        match = self.headers.get("If-Match")
        if match is not None and match != f'"{etag}"':
            return self.answer(412, said)
        body, status = data, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted and rule.get("do") != "whole":
            begin = int(wanted[1])
            end = min(int(wanted[2]) + 1 if wanted[2] else len(data), len(data))
            if begin >= len(data):
                return self.answer(416, [*said, ("Content-Range", f"bytes */{len(data)}")])
            body, status = data[begin:end], 206
            said.append(("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}"))
        if rule.get("do") == "corrupt" and body:
            at = min(rule.get("at", 0), len(body) - 1)
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        if rule.get("do") not in ("cut", "slow"):
            return self.answer(status, said, body)
        self.send_response(status)
        for name, value in [*said, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_badly(body, rule)
        return None

    def send_badly(self, body, rule):
        if rule["do"] == "cut":
            body = body[:rule.get("after", len(body) // 2)]
        step = rule.get("chunk", 1 << 20)
        for begin in range(0, len(body), step):
            self.wfile.write(body[begin:begin + step])
            self.wfile.flush()
            time.sleep(rule.get("ms", 0) / 1000)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    is_cdn = False

    def handle_error(self, request, client_address):
        pass  # who asked has gone away


def serve(is_cdn, tls):
    server = Server(("127.0.0.1", 0), Handler)
    server.is_cdn = is_cdn
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def main():
    tls = sys.argv[3:5] if sys.argv[2:3] == ["--tls"] else None
    Handler.root, Handler.faults = sys.argv[1], Faults(os.path.join(sys.argv[1], "faults.json"))
    Handler.scheme = "https" if tls else "http"
    hub, cdn = serve(False, tls), serve(True, tls)
    Handler.cdn = f"localhost:{cdn}"
    print(hub, cdn, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
