package clawbench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// load runs a closed loop per client for the warm-up and the window. open makes
// a client's connection; what operate does with it is one operation.
func load(ctx context.Context, clients int, window time.Duration, at target, operate func(*connection) error) ([]sample, error) {
	g, ctx := errgroup.WithContext(ctx)
	var connections []*connection
	defer func() {
		for _, c := range connections {
			c.close()
		}
	}()
	for range clients {
		c, err := at.dial(ctx)
		if err != nil {
			return nil, err
		}
		connections = append(connections, c)
	}
	taken := make([][]sample, clients)
	began := time.Now()
	for i, c := range connections {
		g.Go(func() error {
			for {
				start := time.Since(began)
				if start >= warmUp+window {
					return nil
				}
				if err := operate(c); err != nil {
					return err
				}
				end := time.Since(began)
				taken[i] = append(taken[i], sample{end, end - start})
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var all []sample
	for _, s := range taken {
		all = append(all, s...)
	}
	return all, nil
}

// target is where a server listens.
type target struct {
	network, address string
	host, path       string // of URLs
	token            string
}

func parseTarget(address, token string) (target, error) {
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		return target{"unix", socket, "localhost", "", token}, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return target{}, fmt.Errorf("--url %q: want http://host:port or unix:/path", address)
	}
	return target{"tcp", u.Host, u.Host, strings.TrimRight(u.EscapedPath(), "/"), token}, nil
}

// connection speaks HTTP/1.1, one request at a time. It takes a fraction of the
// time of an http.Client, which the server on the same processors gets.
type connection struct {
	target
	conn   net.Conn
	r      *bufio.Reader
	buf    []byte // the last request
	forget func() bool
}

// dial connects until ctx ends: then reads and writes fail.
func (t target) dial(ctx context.Context) (*connection, error) {
	conn, err := new(net.Dialer).DialContext(ctx, t.network, t.address)
	if err != nil {
		return nil, err
	}
	return &connection{
		target: t, conn: conn, r: bufio.NewReader(conn),
		forget: context.AfterFunc(ctx, func() { _ = conn.Close() }),
	}, nil
}

func (c *connection) close() {
	c.forget()
	_ = c.conn.Close() // nothing is lost
}

// do sends a request, reads the answer and returns its header. A status that is
// not a success is an error.
func (c *connection) do(method, path string, body []byte) (http.Header, error) {
	if err := c.send(method, path, "application/json", body); err != nil {
		return nil, err
	}
	header, answer, err := c.receive(method, path)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return header, nil
}

func (c *connection) send(method, path, accept string, body []byte) error {
	c.buf = fmt.Appendf(c.buf[:0], "%s %s%s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n", method, c.path, path, c.host, accept)
	if c.token != "" {
		c.buf = fmt.Appendf(c.buf, "Authorization: Bearer %s\r\n", c.token)
	}
	if body != nil {
		c.buf = fmt.Appendf(c.buf, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	c.buf = append(append(c.buf, "\r\n"...), body...)
	if _, err := c.conn.Write(c.buf); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// receive returns the header of an answer and its body, which must be read to
// its end before the next request.
func (c *connection) receive(method, path string) (http.Header, io.Reader, error) {
	res, err := http.ReadResponse(c.r, nil) //nolint:bodyclose // the whole connection is closed in the end
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if res.StatusCode/100 != 2 {
		problem, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // the status says enough
		return nil, nil, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, problem)
	}
	return res.Header, res.Body, nil
}
