#!/bin/bash
# Servers of datagrams on the stack's own address, clients on the kernel's side of the wire. What is not installed says so.
# modes: stack
# together: yes
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
. "$PROGRAMS_SOURCE/cases/wire_lib.sh"
cd "$TMPDIR" || exit 1
export ZPS_UDP=stack
# What answers the datagram $1, as python writes it, at port $2.
ask() { native python3 -c 'import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(eval(sys.argv[3]), (sys.argv[1], int(sys.argv[2])))
print(s.recv(65536))' $address "$2" "$1"; }


memcached -u root -U 11211 -p 11211 -l $address & server=$!
await answers 11211
step set ask 'b"\0\1\0\0\0\1\0\0set k 0 0 9000\r\n"+b"v"*9000+b"\r\n"' 11211 | head -c 100
step get native python3 -c '
import hashlib, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect((sys.argv[1], 11211))
for i in range(200):  # seven datagrams each
    s.send(b"\0\2\0\0\0\1\0\0get k\r\n")
    first = s.recv(65536)
    parts = {first[2:4]: first[8:]}
    while len(parts) < int.from_bytes(first[4:6], "big"):
        part = s.recv(65536)
        parts[part[2:4]] = part[8:]
    whole = b"".join(parts[number] for number in sorted(parts))
print(len(parts), hashlib.sha256(whole).hexdigest())' $address
end_server

if has gtlsserver && has gtlsclient; then
  openssl ecparam -genkey -name prime256v1 -out key.pem 2>/dev/null
  openssl req -x509 -new -key key.pem -subj /CN=server -days 2 -out cert.pem
  mkdir www down
  seq 1 300000 >www/large
  gtlsserver -q -d www $address 4433 key.pem cert.pem >/dev/null 2>&1 & server=$!
  fetched() { native gtlsclient -q --timeout=200ms --exit-on-all-streams-close --download=down $address 4433 https://$address:4433/large >/dev/null 2>&1 && cmp www/large down/large; }
  await fetched
  step quic cmp www/large down/large
  end_server
fi

if has chronyd; then
  printf '%s\n' 'local stratum 5' allow "bindaddress $address" 'cmdport 0' 'bindcmdaddress /' "pidfile $PWD/server.pid" >server.conf
  printf '%s\n' "server $address iburst minpoll 0 maxpoll 0" 'cmdport 0' 'bindcmdaddress /' "pidfile $PWD/client.pid" >client.conf
  chronyd -x -d -u root -f "$PWD/server.conf" 2>/dev/null & server=$!
  await ask 'b"\x23" + bytes(47)' 123  # a client that finds nobody asks again some seconds later
  native chronyd -x -d -u root -f "$PWD/client.conf" 2>client.log & client=$!
  step time await native grep -q "Selected source $address" client.log
  kill $client
  wait $client
  end_server
fi

if has socat; then
  socat -u UDP4-RECVFROM:7000,bind=$address,fork SYSTEM:'cat >>got' & server=$!
  asked() { echo "$1" | native socat -u STDIN UDP4-SENDTO:$address:7000 && native grep -qx "$1" got; }
  for line in first second third; do await asked $line; done
  step socat sort -u got
  end_server
fi

if has nc; then
  nc -u -l $address 7002 >lines </dev/null & server=$!
  said() { native seq 1 1000 | native timeout 1 nc -u -q0 $address 7002; native grep -qx 1000 lines; }
  await said
  step nc sh -c 'sort -nu lines | sha256sum'
  end_server
fi
