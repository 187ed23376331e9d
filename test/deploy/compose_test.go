// Package deploy checks what the server is deployed with: the image and the
// compose files, as Docker reads them.
package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../.."

// load reads the files, which together are one project, in an environment of
// nothing but environment.
func load(t *testing.T, environment []string, files ...string) (*types.Project, error) {
	t.Helper()
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = filepath.Join(root, f)
	}
	options, err := cli.NewProjectOptions(paths, cli.WithWorkingDirectory(root), cli.WithEnv(environment), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func mustLoad(t *testing.T, environment []string, files ...string) *types.Project {
	t.Helper()
	p, err := load(t, environment, files...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheServerIsReachableFromThisMachineOnly(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, "docker-compose.yml")
	for name, service := range p.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %q", name, port.Published, port.HostIP)
			}
		}
	}
	if ports := p.Services["server"].Ports; len(ports) != 1 || ports[0].Target != 7433 {
		t.Errorf("the server publishes %v", ports)
	}
	if !p.Networks["database"].Internal {
		t.Error("the network of the database leads outside")
	}
}

func TestTheServerWaitsForADatabaseThatAnswers(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, "docker-compose.yml")
	if c := p.Services["server"].DependsOn["postgres"].Condition; c != types.ServiceConditionHealthy {
		t.Errorf("the server starts when postgres is %q", c)
	}
	check := p.Services["postgres"].HealthCheck
	if check == nil || !slices.Contains(check.Test, "pg_isready") {
		t.Errorf("the health check of postgres: %+v", check)
	}
	if grace := p.Services["server"].StopGracePeriod; grace == nil || time.Duration(*grace) < 30*time.Second {
		t.Errorf("the server is killed after %v", grace)
	}
}

func TestNoContainerHasMoreRightsThanItNeeds(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, []string{"CODERCLAW_DOMAIN=claw.example.com"}, "docker-compose.yml", "deploy/compose/tls.yaml")
	for name, service := range p.Services {
		if !slices.Contains(service.CapDrop, "ALL") || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: capabilities dropped: %v, security options: %v", name, service.CapDrop, service.SecurityOpt)
		}
		if name != "postgres" && !service.ReadOnly {
			t.Errorf("%s can write to its image", name)
		}
		if service.Privileged || service.NetworkMode == "host" {
			t.Errorf("%s shares the host: privileged %v, network %q", name, service.Privileged, service.NetworkMode)
		}
	}
}

// state is where the server keeps what must outlive its container.
const state = "/var/lib/coderclaw/"

func TestWhatSealsTheAuditLogOutlivesTheContainer(t *testing.T) {
	t.Parallel()
	server := mustLoad(t, nil, "docker-compose.yml").Services["server"]
	for _, variable := range []string{"CODERCLAW_AUDIT_CHECKPOINT_FILE", "CODERCLAW_AUDIT_KEY_FILE"} {
		file := deref(server.Environment[variable])
		if !strings.HasPrefix(file, state) || !slices.ContainsFunc(server.Volumes, func(v types.ServiceVolumeConfig) bool {
			return v.Type == types.VolumeTypeVolume && v.Target+"/" == state
		}) {
			t.Errorf("%s is %q, volumes are %+v", variable, file, server.Volumes)
		}
	}
}

func TestSecretsComeFromFilesAndNotFromTheEnvironment(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, "docker-compose.yml")
	for name, service := range p.Services {
		for _, secret := range service.Secrets {
			if _, ok := p.Secrets[secret.Source]; !ok {
				t.Errorf("%s uses the secret %s, which is not defined", name, secret.Source)
			}
		}
		for variable, value := range service.Environment {
			file, isFile := strings.CutPrefix(deref(value), "/run/secrets/")
			// What seals the audit log is made by the server, and stays.
			if strings.HasSuffix(variable, "_FILE") != isFile && !strings.HasPrefix(deref(value), state) {
				t.Errorf("%s: %s=%s", name, variable, deref(value))
			}
			if isFile && !slices.ContainsFunc(service.Secrets, func(s types.ServiceSecretConfig) bool { return s.Source == file }) {
				t.Errorf("%s reads %s, which is not mounted", name, deref(value))
			}
		}
	}
	made, err := os.ReadFile(filepath.Join(root, "deploy/compose/make-secrets"))
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range p.Secrets {
		if !strings.Contains(string(made), filepath.Base(secret.File)) {
			t.Errorf("nothing makes %s for the secret %s", secret.File, name)
		}
	}
}

func TestWithTLSTheProxyIsTheOnlyWayIn(t *testing.T) {
	t.Parallel()
	files := []string{"docker-compose.yml", "deploy/compose/tls.yaml"}
	p := mustLoad(t, []string{"CODERCLAW_DOMAIN=claw.example.com"}, files...)
	for name, service := range p.Services {
		if published := len(service.Ports) > 0; published != (name == "proxy") {
			t.Errorf("%s publishes %v", name, service.Ports)
		}
	}
	for _, volume := range p.Services["proxy"].Volumes {
		if volume.Type != types.VolumeTypeBind {
			continue
		}
		if _, err := os.Stat(volume.Source); err != nil {
			t.Error(err)
		}
	}
	if _, err := load(t, nil, files...); err == nil {
		t.Error("the proxy starts without the name of the server")
	}
}

func TestTheWorkspaceCanBeADirectory(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{"": types.VolumeTypeVolume, "CODERCLAW_WORKSPACE=/srv/repositories": types.VolumeTypeBind} {
		volumes := mustLoad(t, []string{source}, "docker-compose.yml").Services["server"].Volumes
		if len(volumes) != 2 || volumes[0].Target != "/workspace" || volumes[0].Type != want {
			t.Errorf("with %q the server mounts %+v, not a %s", source, volumes, want)
		}
	}
}

func TestWorkersCanBeAddedAndSeeTheServerAlone(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]int{"": 0, "CODERCLAW_WORKERS=3": 3} {
		if worker := mustLoad(t, []string{setting}, "docker-compose.yml").Services["worker"]; worker.GetScale() != want {
			t.Errorf("with %q there are %d workers, want %d", setting, worker.GetScale(), want)
		}
	}
	p := mustLoad(t, nil, "docker-compose.yml")
	worker, server := p.Services["worker"], p.Services["server"]
	if worker.Image != server.Image || !slices.Equal(worker.Command, types.ShellCommand{"worker"}) || deref(worker.Environment["CODERCLAW_URL"]) != "http://server:7433" {
		t.Errorf("a worker is %s %v of %s", worker.Image, worker.Command, deref(worker.Environment["CODERCLAW_URL"]))
	}
	if _, ok := worker.Networks["database"]; ok || len(worker.Networks) != 1 {
		t.Errorf("a worker is in the networks %v", worker.Networks)
	}
	if _, ok := server.Networks["front"]; !ok || worker.DependsOn["server"].Condition != types.ServiceConditionHealthy {
		t.Errorf("a worker starts when the server is %q, which it reaches by %v", worker.DependsOn["server"].Condition, server.Networks)
	}
	if worker.ContainerName != "" || len(worker.Ports) > 0 || worker.Environment["CODERCLAW_WORKER_NAME"] != nil {
		t.Error("only one worker can be there")
	}
	if worker.HealthCheck == nil || !worker.HealthCheck.Disable {
		t.Errorf("what is checked of a worker is %+v", worker.HealthCheck)
	}
	for _, s := range worker.Secrets {
		if s.Source != "worker_token" {
			t.Errorf("a worker knows the secret %s", s.Source)
		}
	}
	for _, v := range worker.Volumes {
		if v.Target+"/" == state && v.Source != "" {
			t.Errorf("workers share %s", v.Source)
		}
	}
	behind := mustLoad(t, []string{"CODERCLAW_DOMAIN=claw.example.com"}, "docker-compose.yml", "deploy/compose/tls.yaml").Services["worker"]
	if got := deref(behind.Environment["CODERCLAW_PUBLIC_URL"]); got != "https://claw.example.com" {
		t.Errorf("with TLS its agents report to %s", got)
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
