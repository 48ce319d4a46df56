"""A web server of the tests' own, on the loopback address."""

import http.server
import threading
from contextlib import contextmanager


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(self.path)
        content = self.server.files.get(self.path, self.server.anything)
        if self.path in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[self.path])
            self.end_headers()
        elif self.server.busy.get(self.path, 0) >= len(self.server.seen):
            self.send_error(503)
        elif content is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if self.path in self.server.cut else content)

    def log_message(self, *args):
        pass


@contextmanager
def serving(files=(), *, anything=None, cut=(), moved=(), busy=()):
    """Serve what is in memory; give the server, its address as `url` and the paths it was asked for in `seen`.

    Parameters
    ----------
    files
        Path to content; may be changed later as `server.files`.
    anything
        Content of every other path; None answers 404.
    cut
        Paths whose connection ends half-way through.
    moved
        Path to the address that it points to.
    busy
        Path to how many requests pass before it answers other than 503.
    """
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        server.seen, server.files, server.anything = [], dict(files), anything
        server.cut, server.moved, server.busy = set(cut), dict(moved), dict(busy)
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
