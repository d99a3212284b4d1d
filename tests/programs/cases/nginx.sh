#!/bin/bash
# nginx with two workers and curl on loopback: files, ranges, keep-alive, uploads, reload, quit.
# hooked: nginx curl
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
mkdir -p www logs
chmod 755 "$TMPDIR" "$TMPDIR/.." www
seq 1 200000 >www/large
echo small >www/small
cat >nginx.conf <<END
worker_processes 2;
pid $TMPDIR/nginx.pid;
error_log $TMPDIR/error.log;
events { worker_connections 128; }
http {
  access_log off;
  client_body_temp_path $TMPDIR/body; proxy_temp_path $TMPDIR/proxy; fastcgi_temp_path $TMPDIR/f; uwsgi_temp_path $TMPDIR/u; scgi_temp_path $TMPDIR/s;
  sendfile on;
  gzip on; gzip_types *; gzip_min_length 1;
  server { listen 127.0.0.1:8080 reuseport; root $TMPDIR/www; location /again/ { proxy_pass http://127.0.0.1:8080/; } }
}
END
nginx -p "$TMPDIR" -c "$TMPDIR/nginx.conf"
echo "start $?"
await listens 8080
step small curl -sS http://127.0.0.1:8080/small
step large sh -c 'curl -sS http://127.0.0.1:8080/large | sha256sum'
step range sh -c 'curl -sS -r 1000-2000 http://127.0.0.1:8080/large | sha256sum'
step proxied sh -c 'curl -sS http://127.0.0.1:8080/again/large | sha256sum'
step gzip sh -c 'curl -sS --compressed http://127.0.0.1:8080/large | sha256sum'
step missing curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/missing
step kept curl -sS -w '%{num_connects}\n' http://127.0.0.1:8080/small http://127.0.0.1:8080/small http://127.0.0.1:8080/small
step parallel sh -c 'curl -s --no-progress-meter --parallel --parallel-max 20 -o "out#1" "http://127.0.0.1:8080/again/large?[1-100]" && cat out* | sha256sum && rm out*'
step refused curl -sS http://127.0.0.1:8081/
step timeout curl -s -m 1 http://198.51.100.1/
master=$(cat nginx.pid)
nginx -p "$TMPDIR" -c "$TMPDIR/nginx.conf" -s reload 2>&1 | cut -d: -f4-
echo "reload ${PIPESTATUS[0]}"
step after curl -sS http://127.0.0.1:8080/small
nginx -p "$TMPDIR" -c "$TMPDIR/nginx.conf" -s quit 2>&1 | cut -d: -f4-
gone() { ! kill -0 "$master" 2>/dev/null; }
await gone
cat error.log | grep -v -E 'signal process started|\[notice\]' | sed 's/^[^*]*//'
