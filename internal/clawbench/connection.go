package clawbench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// target is where a server listens.
type target struct {
	dialer     func(context.Context) (net.Conn, error)
	host, path string // of URLs
	token      string
}

func parseTarget(address, token string) (target, error) {
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		return target{dialerOf("unix", socket), "localhost", "", token}, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return target{}, fmt.Errorf("--url %q: want http://host:port or unix:/path", address)
	}
	return target{dialerOf("tcp", u.Host), u.Host, strings.TrimRight(u.EscapedPath(), "/"), token}, nil
}

func dialerOf(network, address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
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
	conn, err := t.dialer(ctx)
	if err != nil {
		return nil, err
	}
	return &connection{
		target: t, conn: conn, r: bufio.NewReader(conn),
		forget: context.AfterFunc(ctx, func() { _ = conn.Close() }),
	}, nil
}

func (t target) dialMany(ctx context.Context, n int) (all []*connection, err error) {
	for range n {
		c, err := t.dial(ctx)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

func closeAll(connections []*connection) {
	for _, c := range connections {
		c.close()
	}
}

func (c *connection) close() {
	c.forget()
	_ = c.conn.Close() // nothing is lost
}

// do sends a request, reads the answer and returns its header. A status that is
// not a success is an error.
func (c *connection) do(method, path string, body []byte) (http.Header, error) {
	return c.call(method, path, acceptJSON, body, nil)
}

const acceptJSON = "Accept: application/json\r\n"

// call is do with headers, each a line with its end, and decodes the answer into
// out unless that is nil.
func (c *connection) call(method, path, headers string, body []byte, out any) (http.Header, error) {
	if err := c.send(method, path, headers, body); err != nil {
		return nil, err
	}
	header, answer, err := c.receive(method, path)
	if err != nil {
		return nil, err
	}
	if out != nil {
		if err := json.NewDecoder(answer).Decode(out); err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return header, nil
}

func (c *connection) send(method, path, headers string, body []byte) error {
	c.buf = fmt.Appendf(c.buf[:0], "%s %s%s HTTP/1.1\r\nHost: %s\r\n%s", method, c.path, path, c.host, headers)
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
