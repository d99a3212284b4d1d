#!/usr/bin/env python3
"""Servers of applications with two workers each: uvicorn, gunicorn, uwsgi, php-fpm behind nginx, and Apache. Everybody answers, bodies are whole, who
dies is missed by nobody, and a reload under load fails no request.

  applications.py --build build/release --mode kernel|zpstack-veth|zpstack-host [--seconds 2] [--reloads 1] [SERVER ...]

Every process of them is prefixed. Reloads that fail requests natively as well (gunicorn's, php-fpm's) are followed by some that must not fail; uvicorn has none, and uwsgi's waits for
connections that are kept.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT, PATH = 8095, "/index.html"  # a file of Apache's
BODY = os.urandom(300_000)

# Answers with its process's number and the body.
PYTHON = """
import os
def wsgi(environment, start):
    body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
    answer = b"%d\\n" % os.getpid() + body
    start("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    answer, more = b"%d\\n" % os.getpid(), True
    while more:
        event = await receive()
        answer, more = answer + event.get("body", b""), event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})
"""
PHP = '<?php $answer = getmypid() . "\\n" . file_get_contents("php://input"); header("Content-Length: " . strlen($answer)); echo $answer;'
FPM = """
[global]
error_log = {scratch}/fpm.log
pid = {scratch}/pid
daemonize = no
[www]
user = www-data
group = www-data
listen = 127.0.0.1:{inner}
pm = static
pm.max_children = 2
"""
NGINX = """
daemon off;
worker_processes 2;
pid {scratch}/nginx.pid;
error_log stderr crit;
user root;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_max_body_size 1m;
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;
  server {{
    listen {port};
    location / {{
      fastcgi_pass 127.0.0.1:{inner}; fastcgi_param SCRIPT_FILENAME {scratch}/application.php; fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_LENGTH $content_length; fastcgi_param CONTENT_TYPE $content_type;
    }}
  }}
}}
"""
APACHE = """
ServerName localhost
ServerRoot {scratch}
DefaultRuntimeDir {scratch}
PidFile {scratch}/pid
ErrorLog {scratch}/error.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
User www-data
Group www-data
Listen 0.0.0.0:{port}
StartServers 2
MaxKeepAliveRequests 0
DocumentRoot {scratch}/www
"""


PYTHON_FILES = {"application.py": PYTHON}


class Server:
    """What is started, and which signal makes it reload."""

    def __init__(self, argv, files, reload=None, restarts=True, lossless=False, beside=None):
        self.argv, self.files, self.reload = argv, files, reload
        self.restarts = restarts  # a worker that is killed
        self.lossless = lossless  # natively
        self.beside = beside


SERVERS = {
    "uvicorn": Server("uvicorn --workers 2 --host 0.0.0.0 --port {port} --no-access-log --log-level warning --app-dir {scratch} application:asgi", PYTHON_FILES, restarts=False),
    "gunicorn": Server("gunicorn -w 2 --worker-tmp-dir /dev/shm -b 0.0.0.0:{port} --chdir {scratch} application:wsgi", PYTHON_FILES, signal.SIGHUP),
    "uwsgi": Server(
        "uwsgi --plugin python3 --http-socket 0.0.0.0:{port} --wsgi-file {scratch}/application.py --callable wsgi --master -p 2 --die-on-term --disable-logging", PYTHON_FILES
    ),
    "php-fpm": Server(
        "php-fpm8.2 -y {scratch}/fpm.conf", {"fpm.conf": FPM, "nginx.conf": NGINX, "application.php": PHP}, signal.SIGUSR2, beside="nginx -p {scratch} -c {scratch}/nginx.conf"
    ),
    "apache": Server("apache2 -f {scratch}/apache.conf -DFOREGROUND", {"apache.conf": APACHE, "www/index.html": "served"}, signal.SIGUSR1, lossless=True),
}


def post(bed, body):
    """Who has answered, and with what; of Apache, which serves a file, nobody in particular."""
    with socket.create_connection((bed.sut_address, PORT), 10) as connection:
        connection.settimeout(20)
        method = f"POST {PATH} HTTP/1.1\r\nContent-Length: {len(body)}" if body is not None else f"GET {PATH} HTTP/1.1"
        connection.sendall(f"{method}\r\nHost: zps\r\nConnection: close\r\n\r\n".encode() + (body or b""))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer[:200]
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
    assert len(rest) == length, f"{len(rest)} of {length} bytes"
    pid, _, said = rest.partition(b"\n")
    return pid, said


def answers(bed, body=None):
    with contextlib.suppress(OSError, AssertionError):
        return post(bed, body)


def see_workers(bed, gone=None):
    """Which two workers answer those who ask at the same time; who is `gone` does not any more."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:

        def two():
            seen = {answer[0] for answer in pool.map(lambda _: answers(bed, BODY), range(8)) if answer}
            return seen if len(seen) == 2 and gone not in seen else None

        return beds.wait_until(two, 60, "answers of two workers")


def kill_one(bed, server, workers):
    """Others go on, and somebody comes in its place."""
    os.kill(int(min(workers)), signal.SIGKILL)
    for _ in range(20):
        assert post(bed, b"after a death")[1] == b"after a death"
    if server.restarts:
        see_workers(bed, gone=min(workers))


def load(bed, options):
    """wrk, by connections that are kept and by one for each request."""
    wrk = shutil.which("wrk")
    return [
        bed.spawn_peer([wrk, "-t1", "-c4", f"-d{options.seconds}", *more, f"http://{bed.sut_address}:{PORT}{PATH}"], name=name)
        for name, more in (("load", []), ("load-close", ["-H", "Connection: close"]))
    ]


def judge(bed, process, options, lossless):
    assert process.wait(options.seconds + 60) == 0
    text = bed.output(process.name)
    requests = int(re.search(r"(\d+) requests in", text)[1])
    errors = re.findall(r"Socket errors: (.*)|Non-2xx or 3xx responses: (\d+)", text)
    assert requests > 0, text
    assert not lossless or not re.search(r"connect [1-9]|timeout [1-9]|Non-2xx", text), text
    return f"{process.name} {requests} requests, errors {errors or 'none'}"


def reload(bed, options, server, process):
    """Under load; afterwards new workers answer."""
    loads = load(bed, options)
    pause = options.seconds / (options.reloads + 1)
    for _ in range(options.reloads):
        with contextlib.suppress(subprocess.TimeoutExpired):
            loads[0].wait(pause)
        if server.reload:
            process.send_signal(server.reload)
    for each in loads:
        print("    ", judge(bed, each, options, server.lossless), flush=True)
    beds.wait_until(lambda: answers(bed), 30, "answers after the reload")
    for _ in range(20):
        post(bed, None)


def run(bed, options, name):
    bed.scratch.chmod(0o755)  # workers are www-data
    server, place = SERVERS[name], {"scratch": bed.scratch, "port": PORT, "inner": PORT + 1}
    for file, text in server.files.items():
        (bed.scratch / file).parent.mkdir(exist_ok=True)
        (bed.scratch / file).write_text(text.format(**place) if file.endswith(".conf") else text)
    started = []
    for command in filter(None, (server.argv, server.beside)):
        program, *arguments = command.format(**place).split()
        path = shutil.which(program, path="/usr/sbin:/usr/bin")
        assert path, f"{program} is not installed"
        started.append(bed.spawn_sut([path, *arguments], name=program))
    beds.wait_until(lambda: answers(bed) or any(process.poll() is not None for process in started), 60, "an answer")
    if name != "apache":
        workers = see_workers(bed)
        for _ in range(5):
            assert post(bed, BODY)[1] == BODY, "another body"
        kill_one(bed, server, workers)
    reload(bed, options, server, started[0])
    assert all(process.poll() is None for process in started), "somebody has ended"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--seconds", type=int, default=2, help="how long the load lasts")
    parser.add_argument("--reloads", type=int, default=1)
    parser.add_argument("servers", nargs="*", choices=[[], *SERVERS], help="which; all without one")
    options = parser.parse_args()
    for name in options.servers or SERVERS:
        traces = options.build / "test-traces" / f"applications-{name}-{options.mode}"
        begin = time.monotonic()
        if os.fork() == 0:  # who has entered a namespace does not come back
            problem = None
            with beds.Bed(options.mode, options.build, traces) as bed:
                bed.peer_space.enter()
                try:
                    run(bed, options, name)
                except (AssertionError, OSError, TimeoutError, subprocess.TimeoutExpired) as error:
                    problem = f"{name}: {type(error).__name__} {error}"
                    bed.explain_hang()
            os._exit(beds.conclude(problem, traces, "*.err"))
        if os.waitstatus_to_exitcode(os.wait()[1]) != 0:
            return 1
        print(f"ok   {name} {time.monotonic() - begin:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
