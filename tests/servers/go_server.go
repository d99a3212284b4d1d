// An HTTP server as every Go program is one: bodies go back, /child answers with what a child process wrote. Its goroutines' stacks are small, the
// collector runs all the time, and so does the profiler, by SIGPROF.
// SPDX-License-Identifier: BSD-3-Clause
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/pprof"
)

// Writes with ever another distance between the system call and the end of the goroutine's stack.
func answer(depth int, w io.Writer, body []byte) {
	if depth > 0 {
		answer(depth-1, w, body)
		return
	}
	w.Write(body)
}

func main() {
	debug.SetGCPercent(5)
	var profile bytes.Buffer
	pprof.StartCPUProfile(&profile)
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		done := make(chan bool)
		go func() {
			answer(len(body)%200, w, body)
			done <- true
		}()
		<-done
	})
	http.HandleFunc("/child", func(w http.ResponseWriter, r *http.Request) {
		output, err := exec.Command("/bin/echo", "of a child").Output()
		if err != nil {
			panic(err)
		}
		w.Write(output)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe("0.0.0.0:"+os.Args[1], nil))
}
