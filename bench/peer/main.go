// A plain server that takes uploads over HTTP and puts them into Incus instances: what the bench measures the service
// against. A handler, a channel and workers, made durable in the plain way: an upload gets its 202 once its bytes, its
// name in the spool directory and its line in the task log are synced, each by a call of its own.
//
// What it would do at its start, which is to read the log and queue what is still in the spool, is left out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	capacity   = 1 << 20 // tasks that wait in the channel
	tries      = 3
	retryDelay = 5 * time.Second
	pushLimit  = 10 * time.Second // Incus may never answer
)

// task is one upload: a line in the task log, and the file of that ID in the spool.
type task struct {
	ID        string `json:"id"`
	Container string `json:"container"`
	Path      string `json:"path"`
	Name      string `json:"name"`
}

type server struct {
	spool   *os.File // the directory
	taskLog *os.File
	tasks   chan *task
	started int64
	count   atomic.Int64
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8420", "where uploads come in")
	dir := flag.String("dir", "", "the directory of the spool and the task log")
	workers := flag.Int("workers", 1, "files that are delivered at the same time")
	socket := flag.String("socket", "", "the Unix socket of Incus; without it nothing is delivered")
	flag.Parse()
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)

	s, err := open(*dir)
	if err != nil {
		log.Fatal(err)
	}
	if *socket != "" {
		incus := client(*socket, *workers)
		for i := 0; i < *workers; i++ {
			go s.work(incus)
		}
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", listener.Addr())
	http.HandleFunc("/upload", s.upload)
	log.Fatal(http.Serve(listener, nil))
}

func open(dir string) (*server, error) {
	spool := filepath.Join(dir, "spool")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, err
	}
	directory, err := os.Open(spool)
	if err != nil {
		return nil, err
	}
	taskLog, err := os.OpenFile(filepath.Join(dir, "tasks.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	tasks := make(chan *task, capacity)
	return &server{spool: directory, taskLog: taskLog, tasks: tasks, started: time.Now().UnixNano()}, nil
}

// upload answers one request, with 202 once the upload is durable.
func (s *server) upload(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "POST is required.", http.StatusMethodNotAllowed)
		return
	}
	t := &task{
		ID:        fmt.Sprintf("%d-%d", s.started, s.count.Add(1)),
		Container: r.Header.Get("X-Container-Name"),
		Path:      filepath.Clean(r.Header.Get("X-File-Path")),
		Name:      r.Header.Get("X-Host-Path"),
	}
	if t.Container == "" || !filepath.IsAbs(t.Path) {
		http.Error(w, "X-Container-Name and an absolute X-File-Path are required.", http.StatusBadRequest)
		return
	}
	if t.Name == "" {
		t.Name = t.Path
	}
	t.Name = filepath.Base(t.Name)
	if err := s.store(t, r.Body); err != nil {
		log.Printf("%s not stored: %v", t.ID, err)
		http.Error(w, "The upload could not be stored.", http.StatusInternalServerError)
		return
	}
	s.tasks <- t
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, "File '%s' queued for processing on container '%s'.\n", t.Name, t.Container)
	log.Printf("%s accepted for %s%s", t.ID, t.Container, t.Path)
}

// store makes an upload durable: its bytes, then its name, then its line in the log.
func (s *server) store(t *task, body io.Reader) error {
	part := s.file(t) + ".part"
	if err := write(part, body); err != nil {
		os.Remove(part)
		return err
	}
	if err := os.Rename(part, s.file(t)); err != nil {
		return err
	}
	if err := s.spool.Sync(); err != nil {
		return err
	}
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if _, err := s.taskLog.Write(append(line, '\n')); err != nil {
		return err
	}
	return s.taskLog.Sync()
}

func write(name string, body io.Reader) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(file, body); err != nil {
		return err
	}
	return file.Sync()
}

func (s *server) file(t *task) string {
	return filepath.Join(s.spool.Name(), t.ID)
}

// work delivers one task after the other. What does not work stays in the spool.
func (s *server) work(incus *http.Client) {
	for t := range s.tasks {
		err := s.push(incus, t)
		for try := 1; err != nil && try < tries; try++ {
			time.Sleep(retryDelay)
			err = s.push(incus, t)
		}
		if err == nil {
			err = os.Remove(s.file(t))
		}
		if err != nil {
			log.Printf("%s not delivered: %v", t.ID, err)
			continue
		}
		log.Printf("%s delivered to %s%s", t.ID, t.Container, t.Path)
	}
}

// push writes the file into its instance by the request of the Incus client's CreateInstanceFile.
func (s *server) push(incus *http.Client, t *task) error {
	file, err := os.Open(s.file(t))
	if err != nil {
		return err
	}
	defer file.Close()
	address := url.URL{Scheme: "http", Host: "incus", Path: "/1.0/instances/" + t.Container + "/files",
		RawQuery: url.Values{"path": {t.Path}}.Encode()}
	request, err := http.NewRequest(http.MethodPost, address.String(), file)
	if err != nil {
		return err
	}
	request.Header.Set("X-Incus-type", "file")
	request.Header.Set("X-Incus-mode", "0644")
	request.Header.Set("X-Incus-uid", "0")
	request.Header.Set("X-Incus-gid", "0")
	request.Header.Set("X-Incus-write", "overwrite")
	answer, err := incus.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(string(said))
	}
	return err
}

// client is one that reaches Incus through its Unix socket and keeps a connection for each worker.
func client(socket string, workers int) *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &http.Client{Timeout: pushLimit, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: workers}}
}
