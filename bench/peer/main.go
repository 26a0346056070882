// The same heartbeat in Go's net/http: bearer token verified once and then remembered, body checked, the service's own Lua script by EVALSHA,
// the same answer. What a team would write who chose Go; the one to be ahead of.
package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

type claims struct {
	SessionID string `json:"session_id"`
	User      string `json:"user_id"`
	Profile   string `json:"profile_id"`
	Content   string `json:"content_id"`
	Device    string `json:"device_id"`
	Exp       int64  `json:"exp"`
}

type beat struct {
	Position *float64 `json:"position"`
}

type answer struct {
	SessionID string  `json:"session_id"`
	Status    string  `json:"status"`
	Position  float64 `json:"position"`
	Heard     string  `json:"last_heartbeat"`
	Interval  int     `json:"heartbeat_interval"`
}

type event struct {
	ID       string  `json:"id"`
	Type     string  `json:"type"`
	User     string  `json:"user_id"`
	Profile  string  `json:"profile_id"`
	Content  string  `json:"content_id"`
	Device   string  `json:"device_id"`
	Session  string  `json:"session_id"`
	Position float64 `json:"position"`
	Time     string  `json:"timestamp"`
}

type call struct {
	session, block string
	reply          chan []string
}

var (
	secret = []byte(os.Getenv("JWT_SECRET"))
	sha    = os.Getenv("SCRIPT_SHA")
	known  sync.Map
	calls  = make(chan call, 65536)
	path   = regexp.MustCompile(`^/api/playback/session/([0-9a-f-]{36})/heartbeat$`)
	events = bufio.NewWriterSize(os.Stdout, 1<<16)
	guard  sync.Mutex
	times  [12]int
	limits = [11]float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5}
)

func verify(token string) (*claims, bool) {
	if found, ok := known.Load(token); ok {
		c := found.(*claims)
		return c, time.Now().Unix() < c.Exp
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	given, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !hmac.Equal(mac.Sum(nil), given) {
		return nil, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c claims
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return nil, false
	}
	known.Store(token, &c)
	return &c, time.Now().Unix() < c.Exp
}

// One connection; whatever waits is written at once, as the service does.
func redis(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		panic(err)
	}
	reader, writer := bufio.NewReaderSize(conn, 1<<16), bufio.NewWriterSize(conn, 1<<16)
	waiting := make(chan chan []string, 65536)
	go func() {
		for reply := range waiting {
			reply <- read(reader)
		}
	}()
	for c := range calls {
		for {
			fmt.Fprintf(writer, "*6\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n$%d\r\n%s\r\n$1\r\n1\r\n$%d\r\n%s\r\n", sha, len(c.session), c.session, len(c.block), c.block)
			waiting <- c.reply
			if len(calls) == 0 {
				break
			}
			c = <-calls
		}
		writer.Flush()
	}
}

func read(reader *bufio.Reader) []string {
	line, err := reader.ReadString('\n')
	if err != nil {
		panic(err)
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[0] {
	case '*':
		n, _ := strconv.Atoi(line[1:])
		var all []string
		for i := 0; i < n; i++ {
			all = append(all, read(reader)...)
		}
		return all
	case '$':
		n, _ := strconv.Atoi(line[1:])
		text := make([]byte, n+2)
		for at := 0; at < n+2; {
			m, err := reader.Read(text[at:])
			if err != nil {
				panic(err)
			}
			at += m
		}
		return []string{string(text[:n])}
	case '-':
		panic(line)
	}
	return []string{line[1:]}
}

func heartbeat(w http.ResponseWriter, r *http.Request) {
	match := path.FindStringSubmatch(r.URL.Path)
	if match == nil || r.Method != http.MethodPost {
		http.Error(w, `{"code":"not-found"}`, http.StatusNotFound)
		return
	}
	c, ok := verify(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if !ok || c.SessionID != match[1] {
		http.Error(w, `{"code":"unauthorized"}`, http.StatusUnauthorized)
		return
	}
	var b beat
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16384))
	if decoder.Decode(&b) != nil || b.Position == nil || *b.Position < 0 {
		http.Error(w, `{"code":"invalid-request"}`, http.StatusBadRequest)
		return
	}
	began := time.Now()
	heard := began.UTC().Format("2006-01-02T15:04:05.000Z")
	reply := make(chan []string, 1)
	calls <- call{
		"session:{" + match[1] + "}",
		fmt.Sprintf(`,"position":%-11s,"last_heartbeat":"%s"`, strconv.FormatFloat(*b.Position, 'f', -1, 64), heard), reply,
	}
	got := <-reply
	// Now, and one text, the record from its status on; blanks where the session is absent.
	status := strings.TrimSpace(got[1][:6])
	if status == "" {
		http.Error(w, `{"code":"session-not-found"}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(answer{match[1], status, *b.Position, heard, 30})
	note(began, event{match[1] + ":hb:" + got[0], "playback.heartbeat", c.User, c.Profile, c.Content, c.Device, match[1], *b.Position, heard})
}

// The event line and the duration histogram, which the service has too.
func note(began time.Time, e event) {
	line, _ := json.Marshal(e)
	seconds := time.Since(began).Seconds()
	at := 0
	for at < len(limits) && seconds > limits[at] {
		at++
	}
	guard.Lock()
	times[at]++
	events.Write(append(line, '\n'))
	guard.Unlock()
}

func main() {
	go redis(os.Getenv("REDIS"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("{\"msg\":\"listening\",\"address\":\"http://%s\"}\n", listener.Addr())
	http.Serve(listener, http.HandlerFunc(heartbeat))
}
