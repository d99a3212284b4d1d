#!/bin/bash
# openssl: 1000 handshakes on loopback with a P-256 certificate, sessions, keys, digests, speed with several processes.
# hooked: openssl
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
openssl ecparam -genkey -name prime256v1 -out key.pem 2>/dev/null
openssl req -x509 -new -key key.pem -subj /CN=localhost -days 2 -out cert.pem
openssl s_server -accept 127.0.0.1:4433 -key key.pem -cert cert.pem -quiet -www 2>server.err & server=$!
await listens 4433

# s_time counts what it got through in the time given; a loop of its own counts to the end.
handshakes=0
python3 - <<'END'
import socket, ssl
context = ssl.create_default_context(cafile="cert.pem")
done = 0
for i in range(1000):
    with context.wrap_socket(socket.create_connection(("127.0.0.1", 4433)), server_hostname="localhost") as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        first = s.recv(15)
        done += first == b"HTTP/1.0 200 ok"
print(done, "handshakes of 1000")
END
openssl s_time -connect 127.0.0.1:4433 -new -time 1 -www / 2>&1 | grep -c 'connections in .* real seconds'
for i in 1 2 3 4 5; do
  echo | openssl s_client -connect 127.0.0.1:4433 -CAfile cert.pem -verify_return_error -brief 2>&1 | grep -E 'Verification|Protocol|Ciphersuite'
done
kill $server
wait $server
echo "server $?"

for i in $(seq 1 50); do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null | openssl pkey -check -noout; done | sort | uniq -c
openssl genrsa 2048 2>/dev/null | openssl rsa -check -noout
seq 1 100000 | openssl enc -aes-256-cbc -pbkdf2 -pass pass:word -S 0011223344556677 | sha256sum
seq 1 100000 | openssl enc -aes-256-ctr -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 0 | openssl dgst -sha512
openssl speed -seconds 1 -multi 2 -evp aes-128-gcm 2>/dev/null | grep -c AES-128-GCM
openssl speed -seconds 1 ecdsap256 2>/dev/null | grep -c 256
openssl rand -hex 16 | wc -c
