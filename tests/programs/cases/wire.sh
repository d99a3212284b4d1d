#!/bin/bash
# Servers on the stack's own address, clients on the kernel's side of the wire: openssl s_server with 1000 handshakes, nginx, python3.
# modes: stack
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
address=198.18.0.2
[ "$PROGRAMS_MODE" = native ] && ip address add $address/15 dev lo
answers() { native bash -c ": </dev/tcp/$address/$1"; }

openssl ecparam -genkey -name prime256v1 -out key.pem 2>/dev/null
openssl req -x509 -new -key key.pem -subj /CN=server -days 2 -out cert.pem
openssl s_server -accept $address:4433 -key key.pem -cert cert.pem -quiet -www 2>server.err & server=$!
await answers 4433
cat >handshakes.py <<'END'
import socket, ssl, sys
context = ssl.create_default_context(cafile="cert.pem")
done = 0
for i in range(1000):
    with context.wrap_socket(socket.create_connection((sys.argv[1], 4433)), server_hostname="server") as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        done += s.recv(15) == b"HTTP/1.0 200 ok"
print(done, "handshakes of 1000")
END
step handshakes native python3 handshakes.py $address
kill $server
wait $server
echo "server $?"

mkdir www
chmod 755 "$TMPDIR" "$TMPDIR/.." www
seq 1 300000 >www/large
cat >nginx.conf <<END
worker_processes 2;
pid $TMPDIR/nginx.pid;
error_log $TMPDIR/error.log;
events { worker_connections 128; }
http {
  access_log off;
  client_body_temp_path $TMPDIR/body; proxy_temp_path $TMPDIR/proxy; fastcgi_temp_path $TMPDIR/f; uwsgi_temp_path $TMPDIR/u; scgi_temp_path $TMPDIR/s;
  sendfile on;
  server { listen $address:8080; root $TMPDIR/www; }
}
END
nginx -p "$TMPDIR" -c "$TMPDIR/nginx.conf"
await answers 8080
step large sh -c "LD_PRELOAD= ZPS_HOOK=off curl -sS http://$address:8080/large | sha256sum"
step parallel native sh -c "curl -s --no-progress-meter --parallel --parallel-max 10 -o 'out#1' 'http://$address:8080/large?[1-50]' && cat out* | sha256sum && rm out*"
# The file goes before the process, which has the address until it ends.
master=$(cat nginx.pid)
kill -QUIT "$master"
gone() { ! native grep -qs '^State:[[:space:]]*[^Z[:space:]]' "/proc/$master/status"; }
await gone

python3 -c "
import http.server, os, threading
server = http.server.ThreadingHTTPServer(('$address', 8000), http.server.SimpleHTTPRequestHandler)
server.serve_forever()" 2>/dev/null & server=$!
await answers 8000
step python native sh -c "curl -s --no-progress-meter --parallel --parallel-max 10 -o 'out#1' 'http://$address:8000/www/large?[1-30]' && cat out* | sha256sum && rm out*"
kill $server
wait $server
echo "server $?"
