package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFaultsOfTheNetworkNameTheirVariable(t *testing.T) {
	for name, c := range map[string]struct {
		variable, value string
		want            string
	}{
		"a certificate without a key":          {"TLS_CERT_FILE", "cert.pem", "CODERCLAW_TLS_CERT_FILE: does nothing without CODERCLAW_TLS_KEY_FILE, nor that without it; set both"},
		"a key without a certificate":          {"TLS_KEY_FILE", "key.pem", "CODERCLAW_TLS_CERT_FILE: does nothing without CODERCLAW_TLS_KEY_FILE, nor that without it; set both"},
		"a domain with a wildcard":             {"ACME_DOMAINS", "*.claw.example", `CODERCLAW_ACME_DOMAINS: "*.claw.example" is not a domain such as claw.example.com, in lower case and ASCII`},
		"an address for a domain":              {"ACME_DOMAINS", "192.0.2.1", `CODERCLAW_ACME_DOMAINS: "192.0.2.1" is not a domain such as claw.example.com, in lower case and ASCII`},
		"a public URL in the clear":            {"PUBLIC_URL", "http://claw.example", `CODERCLAW_PUBLIC_URL: "http://claw.example" is plain HTTP to another machine; it must be https`},
		"a public URL with a path":             {"PUBLIC_URL", "https://claw.example/api", `CODERCLAW_PUBLIC_URL: "https://claw.example/api" must end after the host and port`},
		"a public URL with a query":            {"PUBLIC_URL", "https://claw.example?", `CODERCLAW_PUBLIC_URL: "https://claw.example?" must end after the host and port`},
		"a public URL without a scheme":        {"PUBLIC_URL", "claw.example", `CODERCLAW_PUBLIC_URL: "claw.example" is not an https URL such as https://claw.example.com`},
		"a public URL with a password":         {"PUBLIC_URL", "https://me:hunter2@claw.example", "CODERCLAW_PUBLIC_URL: must be an https URL without a user or password, e.g. https://claw.example.com"},
		"a public URL with an impossible port": {"PUBLIC_URL", "https://claw.example:70000", `CODERCLAW_PUBLIC_URL: "https://claw.example:70000": the port must be a number from 0 to 65535`},
		"every origin":                         {"CORS_ORIGINS", "*", `CODERCLAW_CORS_ORIGINS: "*" is not an https URL such as https://claw.example.com`},
		"a pattern of origins":                 {"CORS_ORIGINS", "https://*.example", `CODERCLAW_CORS_ORIGINS: "https://*.example" is not an https URL such as https://claw.example.com`},
		"the origin of sandboxed pages":        {"CORS_ORIGINS", "null", `CODERCLAW_CORS_ORIGINS: "null" is not an https URL such as https://claw.example.com`},
		"an origin with a slash":               {"CORS_ORIGINS", "https://app.example/", `CODERCLAW_CORS_ORIGINS: "https://app.example/" is not how browsers write it: https://app.example`},
		"an origin with the default port":      {"CORS_ORIGINS", "https://[2001:DB8::1]:443", `CODERCLAW_CORS_ORIGINS: "https://[2001:DB8::1]:443" is not how browsers write it: https://[2001:db8::1]`},
		"a host with a port":                   {"ALLOWED_HOSTS", "claw.example:443", `CODERCLAW_ALLOWED_HOSTS: "claw.example:443" is not a name or address without a port, in lower case and ASCII`},
		"a proxy by name":                      {"TRUSTED_PROXIES", "proxy.example", `CODERCLAW_TRUSTED_PROXIES: "proxy.example" is not an address or network such as 10.0.0.0/8`},
		"a network with bits of a host":        {"TRUSTED_PROXIES", "10.1.2.3/8", "CODERCLAW_TRUSTED_PROXIES: 10.1.2.3/8 has bits beyond its length; the network is 10.0.0.0/8"},
		"everybody as a proxy":                 {"TRUSTED_PROXIES", "0.0.0.0/0", "CODERCLAW_TRUSTED_PROXIES: 0.0.0.0/0 is everybody, who could then claim any address"},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, map[string]string{"CODERCLAW_" + c.variable: c.value})
			if _, _, err := Load(Options{}); err == nil || err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestCertificatesComeFromOneSource(t *testing.T) {
	environment(t, map[string]string{
		"CODERCLAW_TLS_CERT_FILE": "cert.pem", "CODERCLAW_TLS_KEY_FILE": "key.pem",
		"CODERCLAW_ACME_DOMAINS": "claw.example", "CODERCLAW_ACME_DIRECTORY_URL": "http://acme.example",
	})
	want := `CODERCLAW_ACME_DOMAINS: contradicts CODERCLAW_TLS_CERT_FILE; set one of them
CODERCLAW_ACME_DIRECTORY_URL: must be an https URL without a user or password`
	if _, _, err := Load(Options{}); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestWhatOthersReachNeedsAuthentication(t *testing.T) {
	for url, fine := range map[string]bool{"http://localhost:7433/": true, "https://127.0.0.1": true, "https://claw.example": false} {
		environment(t, map[string]string{"CODERCLAW_PUBLIC_URL": url})
		_, _, err := Load(Options{Serves: true})
		if fine != (err == nil) || !fine && !strings.HasPrefix(err.Error(), "security.requireAuth is false and "+url+" is for other machines") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestPrivateKeysAreNotForOthers(t *testing.T) {
	for mode, fine := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o604: false, 0o660: false, 0o601: false} {
		environment(t, nil)
		key := write(t, filepath.Join(t.TempDir(), "key.pem"), "key")
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		for _, variable := range []string{"CODERCLAW_SIGNING_KEY_FILE", "CODERCLAW_AUDIT_KEY_FILE", "CODERCLAW_TLS_KEY_FILE"} {
			environment(t, map[string]string{variable: key})
			if variable == "CODERCLAW_TLS_KEY_FILE" {
				t.Setenv("CODERCLAW_TLS_CERT_FILE", "cert.pem")
			}
			_, _, err := Load(Options{Serves: true})
			if fine != (err == nil) || !fine && !strings.HasPrefix(err.Error(), variable+": the file's mode is ") {
				t.Errorf("%s with mode %#o: %v", variable, mode, err)
			}
			if _, _, err := Load(Options{}); err != nil {
				t.Errorf("a process that does not serve: %v", err)
			}
		}
	}
}

func TestHostsAreNamedWhereAnyWouldBeADanger(t *testing.T) {
	t.Parallel()
	const anyHost = "any"
	for name, c := range map[string]struct {
		config Config
		want   []string
	}{
		"a credential is required":        {Config{RequireAuth: true, PublicURL: "https://claw.example"}, []string{anyHost}},
		"required, of some hosts":         {Config{RequireAuth: true, PublicURL: "https://claw.example", AllowedHosts: List{"10.0.0.5"}}, []string{"10.0.0.5", "claw.example"}},
		"no credential is required":       {Config{}, nil},
		"none is required, of some hosts": {Config{AllowedHosts: List{"devbox"}}, []string{"devbox"}},
	} {
		got, anyName := c.config.Hosts()
		if anyName {
			got = []string{anyHost}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
