"""Runs commands, each in a process of its own that ends as a command does, without importing everything again.

A request is a line of JSON on standard input; the answers are lines with the number of the process and, once it has
ended, with its status as ``subprocess`` has it.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.evaluate import main as evaluate
from gliner_pipe.predict import main as predict

COMMANDS = {"predict": predict, "evaluate": evaluate}


@Language.component("fragile")
def fragile(doc: Doc) -> Doc:
    """Fails on some texts."""
    if doc.text.startswith("fail"):
        raise RuntimeError("this text is too much")
    if doc.text.startswith("die"):
        os._exit(7)
    return doc


def serve() -> None:
    """Answer requests; returns in the process of a command, which has ended."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setsid()
            # a shell's background job ignores it, and children inherit that
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
                descriptor = os.open(request[name], flags)
                os.dup2(descriptor, number)
                os.close(descriptor)
            sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, "r"), os.fdopen(1, "w"), os.fdopen(2, "w")
            if request["largest_file"]:
                import resource  # which Windows lacks

                resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
            COMMANDS[request["command"]](request["arguments"])
            return
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
