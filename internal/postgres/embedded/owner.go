package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// owner is the operating system's user that the server runs as.
type owner struct {
	uid, gid int
	name     string
	self     string // the name of the user that this process runs as
}

// clusterOwner returns whom the cluster belongs to or, where there is none
// yet, is to belong to.
func clusterOwner(l *layout) (owner, error) {
	self, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return owner{}, fmt.Errorf("PostgreSQL needs a user with a name: %w", err)
	}
	o := owner{uid: os.Geteuid(), gid: os.Getegid(), name: self.Username, self: self.Username}

	var made syscall.Stat_t
	err = syscall.Lstat(l.home, &made)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return owner{}, fmt.Errorf("look at %s: %w", l.home, err)
	}
	exists := err == nil
	if o.uid != 0 {
		if exists && int(made.Uid) != o.uid {
			return owner{}, fmt.Errorf("%s belongs to %s, not to %s: run as that user, or choose another directory with CODERCLAW_DATA_DIR",
				l.home, userName(made.Uid), o.name)
		}
		return o, nil
	}

	// PostgreSQL refuses root.
	var account *user.User
	if exists && made.Uid != 0 {
		account, err = user.LookupId(strconv.Itoa(int(made.Uid)))
	} else if account, err = user.Lookup("postgres"); err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return owner{}, fmt.Errorf("PostgreSQL cannot run as root: %w", err)
	}
	o.name = account.Username
	if o.uid, err = strconv.Atoi(account.Uid); err != nil {
		return owner{}, err
	}
	if o.gid, err = strconv.Atoi(account.Gid); err != nil {
		return owner{}, err
	}
	return o, nil
}

func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.Itoa(int(uid))); err == nil {
		return u.Username
	}
	return "user " + strconv.Itoa(int(uid))
}

// credential is what a child process takes on; nil for our own.
func (o owner) credential() *syscall.Credential {
	if o.uid == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
}

// makeDir sees to a directory that only o can use. One that is there already
// must be just that: in a shared place somebody else may have put it there.
func (o owner) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a directory for PostgreSQL: %w", err)
	}
	var stat syscall.Stat_t
	if err := syscall.Lstat(dir, &stat); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFDIR || stat.Mode&0o077 != 0 {
		return fmt.Errorf("%s is not a private directory: remove it", dir)
	}
	switch int(stat.Uid) {
	case o.uid:
		return nil
	case os.Geteuid():
		return os.Lchown(dir, o.uid, o.gid)
	}
	return fmt.Errorf("%s belongs to %s, not to %s: remove it", dir, userName(stat.Uid), o.name)
}

// mustReach returns an error unless o may pass through every directory above
// dir. PostgreSQL's own complaint would name a program instead.
func (o owner) mustReach(dir string) error {
	if o.uid == os.Geteuid() {
		return nil
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		var stat syscall.Stat_t
		if err := syscall.Stat(parent, &stat); err != nil {
			return fmt.Errorf("look at %s: %w", parent, err)
		}
		need := uint32(0o001)
		switch {
		case int(stat.Uid) == o.uid:
			need = 0o100
		case int(stat.Gid) == o.gid:
			need = 0o010
		}
		if uint32(stat.Mode)&need == 0 {
			return fmt.Errorf("PostgreSQL runs as user %s, who may not enter %s: chmod a+x it, or choose another directory with CODERCLAW_DATA_DIR",
				o.name, parent)
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}
