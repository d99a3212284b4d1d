// std::net and threads: an echo server and 16 clients over loopback, a channel, a child process, a panic that is caught.
// SPDX-License-Identifier: BSD-3-Clause
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut served = Vec::new();
        for _ in 0..16 {
            let (mut stream, _) = listener.accept().unwrap();
            served.push(thread::spawn(move || {
                let mut text = Vec::new();
                stream.read_to_end(&mut text).unwrap();
                stream.write_all(&text).unwrap();
                text.len()
            }));
        }
        served.into_iter().map(|s| s.join().unwrap()).sum::<usize>()
    });
    let (sender, receiver) = mpsc::channel();
    for client in 0..16usize {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&vec![client as u8; client * 10007]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut text = Vec::new();
            stream.read_to_end(&mut text).unwrap();
            assert!(text.iter().all(|&b| b == client as u8));
            sender.send(text.len()).unwrap();
        });
    }
    drop(sender);
    println!("{} {}", receiver.iter().sum::<usize>(), server.join().unwrap());
    println!("{:?}", TcpStream::connect("127.0.0.1:1").unwrap_err().kind());
    let mut child = Command::new("tr").args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through a child\n").unwrap();
    let output = child.wait_with_output().unwrap();
    print!("{} {}", output.status, String::from_utf8_lossy(&output.stdout));
    std::panic::set_hook(Box::new(|_| {}));
    println!("{}", thread::spawn(|| panic!("caught")).join().is_err());
}
