// What a RUN step can reach: `probe PATIENCE NAME=TARGET…` tries every target at once and prints a line `PROBE NAME ANSWER` each.
// A target is host:port (open or closed) or a URL (its body or closed). In it {4} and {6} are
// the step's own addresses, and %LINK is the zone of its link.
// Meanwhile port 8000 is listened on, for whoever tries to come in.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

var patience time.Duration

func main() {
	patience, _ = time.ParseDuration(os.Args[1])
	own := addresses()
	for _, network := range []string{"tcp4", "tcp6"} {
		if listener, err := net.Listen(network, ":8000"); err == nil {
			go http.Serve(listener, nil)
		}
	}
	// Who comes in from outside makes the way out known to this side: the way out is tried before.
	for _, inbound := range []bool{false, true} {
		var all sync.WaitGroup
		for _, argument := range os.Args[2:] {
			name, target, _ := strings.Cut(argument, "=")
			if strings.Contains(target, "{") != inbound {
				continue
			}
			all.Add(1)
			go func() {
				defer all.Done()
				fmt.Printf("PROBE %s %s\n", name, try(own.Replace(target)))
			}()
		}
		all.Wait()
	}
}

func try(target string) string {
	if !strings.HasPrefix(target, "http://") {
		connection, err := net.DialTimeout("tcp", target, patience)
		if err != nil {
			return "closed"
		}
		connection.Close()
		return "open"
	}
	answer, err := (&http.Client{Timeout: 4 * patience}).Get(target)
	if err != nil {
		return "closed"
	}
	body, _ := io.ReadAll(answer.Body)
	return strings.TrimSpace(string(body))
}

// The kernel needs a moment before an IPv6 address can be used.
func addresses() *strings.Replacer {
	time.Sleep(100 * time.Millisecond)
	ipv4, ipv6, zone := "none", "none", "none"
	interfaces, _ := net.Interfaces()
	for _, link := range interfaces {
		found, _ := link.Addrs()
		for _, each := range found {
			ip := each.(*net.IPNet).IP
			switch {
			case ip.IsLoopback() || ip.IsLinkLocalUnicast():
			case ip.To4() != nil:
				ipv4, zone = ip.String(), link.Name
			default:
				ipv6 = "[" + ip.String() + "]"
			}
		}
	}
	return strings.NewReplacer("{4}", ipv4, "{6}", ipv6, "%LINK", "%"+zone)
}
