"""The child process that runs llama.cpp: settings come in as one JSON line on stdin, the address goes out.

It is run as a script, so that it loads nothing but the standard library and xllamacpp. It lives exactly as
long as its parent holds the other end of its stdin, and says one JSON line on stdout when it serves.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any


def _end_with_parent(parent: int) -> None:
    """Die when the parent does, even by SIGKILL: end of stdin anywhere, a death signal besides on Linux.

    The signal is needed where a forked sibling holds a copy of the pipe's other end, and while llama.cpp
    loads a model without letting another Python thread run.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    def wait_for_end() -> None:
        # Not through sys.stdin: the interpreter could not shut down while its lock is held here.
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait_for_end, daemon=True).start()


def _serve(settings: dict[str, Any]) -> Any:
    """Start llama.cpp's server; returns once the model is loaded and the port open."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["name"]}
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context"]
    params.cpuparams.n_threads = settings["threads"]
    params.cont_batching = True
    params.use_jinja = True
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # The context asked for is the context served: no silent shrinking to the memory there is.
    params.fit_params = False
    # No page in a browser on this machine may talk to the server, and there is nothing to look at.
    params.cors_origins = "null"
    params.ui = False
    params.endpoint_slots = False
    return xllamacpp.Server(params)


def main() -> None:
    """Serve until stdin ends."""
    settings = json.loads(sys.stdin.buffer.readline())
    # Ctrl-C and a termination reach the whole process group; the parent still has calls to finish then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_with_parent(settings["parent"])
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever llama.cpp prints belongs into the log
    server = _serve(settings)
    print(json.dumps({"address": server.listening_address}), file=answer, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
