// Exercises node: child processes of every kind, worker threads, http over loopback, files, timers, streams, crypto and zlib in the thread pool.
// SPDX-License-Identifier: BSD-3-Clause
'use strict';
const assert = require('assert');
const { execFile, execFileSync, fork, spawn, spawnSync, exec } = require('child_process');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { promisify } = require('util');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const net = require('net');
const os = require('os');
const path = require('path');
const zlib = require('zlib');

async function children() {
  console.log(execFileSync('echo', ['sync']).toString().trim());
  console.log((await promisify(execFile)('seq', ['3'])).stdout.trim().replace(/\n/g, ','));
  console.log((await promisify(exec)('echo shell | tr a-z A-Z')).stdout.trim());
  const failed = spawnSync('/nonexistent');
  console.log(failed.error.code);
  const cat = spawn('cat');
  const echoed = [];
  cat.stdout.on('data', (data) => echoed.push(data));
  const ended = new Promise((resolve) => cat.on('close', resolve));
  for (let i = 0; i < 50; i++) cat.stdin.write('x'.repeat(4000));
  cat.stdin.end();
  console.log('cat', await ended, Buffer.concat(echoed).length);
  const sleeper = spawn('sleep', ['60']);
  const signalled = new Promise((resolve) => sleeper.on('exit', (code, signal) => resolve([code, signal])));
  sleeper.kill('SIGTERM');
  console.log('sleeper', await signalled);
  const child = fork(__filename, ['child']);
  const answer = new Promise((resolve) => child.on('message', resolve));
  child.send({ numbers: [1, 2, 3] });
  console.log('fork', await answer);
  child.disconnect();
  const many = await Promise.all(Array.from({ length: 30 }, (_, i) => promisify(execFile)('echo', [String(i)])));
  console.log('many', many.map((m) => m.stdout.trim()).join(' '));
}

async function workers() {
  const results = await Promise.all(
    Array.from({ length: 6 }, (_, i) => new Promise((resolve, reject) => {
      const worker = new Worker(__filename, { workerData: i });
      worker.on('message', resolve);
      worker.on('error', reject);
    })),
  );
  console.log('workers', results.join(' '));
}

async function web() {
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts);
      response.setHeader('x-length', body.length);
      response.end(crypto.createHash('sha256').update(body).digest('hex'));
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const ask = (size) => new Promise((resolve, reject) => {
    const request = http.request({ port, host: '127.0.0.1', method: 'POST', agent }, (response) => {
      let text = '';
      response.on('data', (part) => { text += part; });
      response.on('end', () => resolve(`${response.statusCode} ${response.headers['x-length']} ${text.slice(0, 8)}`));
    });
    request.on('error', reject);
    request.end(Buffer.alloc(size, 'z'));
  });
  const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => ask(i * 997)));
  console.log('http', answers.length, crypto.createHash('sha256').update(answers.join('\n')).digest('hex'));
  agent.destroy();
  await new Promise((resolve) => server.close(resolve));
  const local = path.join(os.tmpdir(), 'local.sock');
  const unix = net.createServer((socket) => socket.pipe(socket)).listen(local);
  const client = net.connect(local);
  client.end('over a unix socket');
  let text = '';
  for await (const part of client) text += part;
  console.log(text);
  await new Promise((resolve) => unix.close(resolve));
  const refused = net.connect(1, '127.0.0.1');
  console.log(await new Promise((resolve) => refused.on('error', (error) => resolve(error.code))));
}

async function files() {
  const name = path.join(process.cwd(), 'file');
  await fs.promises.writeFile(name, 'a'.repeat(100000));
  await Promise.all(Array.from({ length: 20 }, (_, i) => fs.promises.copyFile(name, `${name}${i}`)));
  const sizes = await Promise.all(Array.from({ length: 20 }, async (_, i) => (await fs.promises.stat(`${name}${i}`)).size));
  console.log('files', sizes.reduce((a, b) => a + b));
  const watched = new Promise((resolve) => { const watcher = fs.watch(process.cwd(), (_, file) => { watcher.close(); resolve(file); }); });
  fs.writeFileSync('watched', 'x');
  console.log('watch', await watched);
  const packed = await promisify(zlib.gzip)(await fs.promises.readFile(name));
  console.log('zlib', (await promisify(zlib.gunzip)(packed)).length);
  const key = await promisify(crypto.scrypt)('secret', 'salt', 32);
  console.log('scrypt', key.toString('hex').slice(0, 16));
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  for (let i = 0; i < 200; i++) {
    const text = Buffer.from(String(i));
    assert(crypto.verify('sha256', text, publicKey, crypto.sign('sha256', text, privateKey)));
  }
}

function hot() {
  let sum = 0;
  const step = new Function('a', 'b', 'return (a * 31 + b) | 0');
  for (let i = 0; i < 3e6; i++) sum = step(sum, i);
  const matches = 'abc123def456'.repeat(1000).match(/(?:[a-z]+)(\d+)/g).length;
  return `${sum} ${matches}`;
}

async function main() {
  await children();
  await workers();
  await web();
  await files();
  console.log('hot', hot());
  const signalled = new Promise((resolve) => process.once('SIGUSR2', resolve));
  process.kill(process.pid, 'SIGUSR2');
  console.log(await signalled);
  process.on('exit', (code) => console.log('exit', code));
  process.exitCode = 7;
}

if (process.argv[2] === 'child') {
  process.on('message', (message) => process.send(message.numbers.map((n) => n * n)));
} else if (isMainThread) {
  main();
} else {
  parentPort.postMessage(workerData * execFileSync('echo', ['11']).toString());
}
