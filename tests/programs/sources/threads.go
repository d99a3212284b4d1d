// Goroutines, net over loopback, child processes, signals; with an argument nil alone, which Go finds by SIGSEGV.
// SPDX-License-Identifier: BSD-3-Clause
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
)

type node struct {
	pad  [16]byte
	next *node
}

func caught() (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	var none *node
	return fmt.Sprint(none.next)
}

func main() {
	if len(os.Args) > 1 {
		fmt.Println(caught())
		return
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	var wait sync.WaitGroup
	results := make([]int64, 50)
	for i := range results {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			response, err := http.Post(server.URL, "text/plain", io.LimitReader(zeros{}, int64(i*10007)))
			if err != nil {
				fmt.Println(err)
				return
			}
			results[i], _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}(i)
	}
	wait.Wait()
	server.Close()
	var sum int64
	for _, n := range results {
		sum += n
	}
	fmt.Println("http", sum)
	_, err := net.Dial("tcp", "127.0.0.1:1")
	fmt.Println(err)
	for i := 0; i < 5; i++ {
		output, err := exec.Command("sh", "-c", fmt.Sprintf("echo child %d; exit %d", i, i)).Output()
		fmt.Print(string(output), err, "\n")
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-signals)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
