package clawctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/identity/dpop"
)

func (c *cli) deviceCommand() *cobra.Command {
	list := listing(c, "List devices", "devices",
		everyOne(c, (*api.Client).Devices), func(all []api.Device) any { return api.DeviceList{Items: all} },
		[]string{"ID", "USER", "NAME", "TRUST", "AGE", "LAST SEEN", "THUMBPRINT"},
		func(d api.Device) []string {
			trust := d.Trust
			if d.RevokedAt != nil {
				trust = "revoked"
			}
			return []string{d.ID, d.UserID, d.Name, trust, span(c.now().Sub(d.CreatedAt)), c.ago(d.LastSeenAt), d.Thumbprint}
		})
	revoke := c.each("revoke ID...", "End devices for ever, and the sessions opened with their keys", "the id of a device", func(ctx context.Context, client *api.Client, id string) error {
		if err := client.RevokeDevice(ctx, id); err != nil {
			return err
		}
		return c.print(revoked{id}, func() { c.out.printf("%s revoked\n", cleanLine(id)) })
	})
	return group("device", "Make this machine known, and see and trust devices",
		c.deviceEnrollCommand(), c.deviceVerifyCommand(), list, c.deviceTrustCommand(), revoke, c.deviceForgetCommand(), c.deviceCodeCommand())
}

// ago says how long ago something was, if it ever was.
func (c *cli) ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	return span(c.now().Sub(*t))
}

// ownAccount returns the login whose key is about to be used, as it is kept.
func (c *cli) ownAccount(ctx context.Context) (*account, *api.Client, error) {
	a, err := c.account()
	if err != nil {
		return nil, nil, err
	}
	if _, err := a.load(ctx); err != nil {
		return nil, nil, err
	}
	client, err := c.client()
	return a, client, err
}

func (c *cli) deviceEnrollCommand() *cobra.Command {
	var name, code string
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Give this machine a key, and make it known to the server",
		Long: `Give this machine a key, and make it known to the server.

The key never leaves the place where logins are kept. From the next login on,
sessions are bound to it: their tokens are worth nothing on another machine.
With an enrolment code the device is verified from the start; trusted it becomes
by an administrator.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.enroll(cmd.Context(), name, code) },
	}
	cmd.Flags().StringVar(&name, "name", "", "what people call this machine (default its host name)")
	cmd.Flags().StringVar(&code, "code", "", "an enrolment `code` from an administrator")
	return cmd
}

func (c *cli) enroll(ctx context.Context, name, code string) error {
	a, client, err := c.ownAccount(ctx)
	if err != nil {
		return err
	}
	if name, err = machineName(name); err != nil {
		return err
	}
	if a.kept.DeviceKey != "" {
		return alreadyDevice(a.kept)
	}
	signer, err := dpop.GenerateEd25519()
	if err != nil {
		return err
	}
	key, err := signer.Marshal()
	if err != nil {
		return err
	}
	challenge, signature, err := signed(ctx, client, signer)
	if err != nil {
		return err
	}
	device, err := client.EnrollDevice(ctx, api.NewDevice{
		Name: name, Key: signer.Key().JWK(), Challenge: challenge, Signature: signature, Code: code,
	})
	if err != nil {
		return err
	}
	if err := a.change(context.WithoutCancel(ctx), func(kept *credentials) error {
		if kept.DeviceKey != "" {
			return alreadyDevice(kept)
		}
		kept.DeviceID, kept.DeviceKey = device.ID, string(key)
		return nil
	}); err != nil {
		return fmt.Errorf("the server knows this machine as device %s, but its key is lost, so revoke that: %w", device.ID, err)
	}
	return c.print(device, func() {
		c.out.printf("%s is %s\n", cleanLine(device.ID), cleanLine(device.Trust))
		c.err.printf("Log in again, so that your session is bound to this device.\n")
	})
}

// machineName is what people call this machine, unless they say otherwise.
func machineName(name string) (string, error) {
	if name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", usagef("this machine has no name: give it one")
	}
	return name, nil
}

func alreadyDevice(kept *credentials) error {
	return fmt.Errorf(`this machine is device %s already; "clawctl device forget" lets go of its key`, kept.DeviceID)
}

// signed returns a challenge of the server's, and its signature by the key.
func signed(ctx context.Context, client *api.Client, signer *dpop.Signer) (challenge, signature string, err error) {
	asked, err := client.DeviceChallenge(ctx)
	if err != nil {
		return "", "", err
	}
	signature, err = signer.SignChallenge(asked.Challenge)
	return asked.Challenge, signature, err
}

func (c *cli) deviceVerifyCommand() *cobra.Command {
	var code string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Raise this machine to verified",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if code == "" {
				return usagef("device verify needs the --code that an administrator has given you")
			}
			a, client, err := c.ownAccount(ctx)
			if err != nil {
				return err
			}
			if a.signer == nil {
				return errors.New(`this machine has no key yet: "clawctl device enroll" makes one`)
			}
			challenge, signature, err := signed(ctx, client, a.signer)
			if err != nil {
				return err
			}
			device, err := client.VerifyDevice(ctx, a.kept.DeviceID, api.VerifyDevice{Code: code, Challenge: challenge, Signature: signature})
			if err != nil {
				return err
			}
			return c.printDevice(device)
		},
	}
	cmd.Flags().StringVar(&code, "code", "", "an enrolment `code` from an administrator")
	return cmd
}

func (c *cli) printDevice(d api.Device) error {
	return c.print(d, func() { c.out.printf("%s is %s\n", cleanLine(d.ID), cleanLine(d.Trust)) })
}

func (c *cli) deviceTrustCommand() *cobra.Command {
	level := choice{value: "trusted", of: []string{"untrusted", "verified", "trusted"}}
	cmd := c.each("trust ID...", "Trust devices, as an administrator", "the id of a device", func(ctx context.Context, client *api.Client, id string) error {
		device, err := client.UpdateDevice(ctx, id, api.DevicePatch{Trust: &level.value})
		if err != nil {
			return err
		}
		return c.printDevice(device)
	})
	cmd.Flags().Var(&level, "level", "how far: untrusted, verified, trusted")
	completeFlag(cmd, "level", level.of...)
	return cmd
}

func (c *cli) deviceForgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forget",
		Short: "Let go of this machine's key and of the login that is bound to it",
		Long: `Let go of this machine's key and of the login that is bound to it, for example
because the device was revoked. The server goes on knowing the device: end it
there with "clawctl device revoke".`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.account()
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), func(kept *credentials) error {
				if kept.DeviceKey == "" {
					return errors.New("this machine has no key")
				}
				if kept.TokenType == "DPoP" {
					kept.closed()
				}
				kept.DeviceID, kept.DeviceKey = "", ""
				return nil
			})
		},
	}
}

func (c *cli) deviceCodeCommand() *cobra.Command {
	var user string
	var expires duration
	cmd := &cobra.Command{
		Use:   "code",
		Short: "Make an enrolment code, as an administrator",
		Args:  none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) error {
			code, err := client.CreateEnrolmentCode(ctx, api.NewEnrolmentCode{UserID: user, ExpiresSeconds: expires.seconds()})
			if err != nil {
				return err
			}
			return c.print(code, func() {
				c.out.printf("%s\n", cleanLine(code.Code))
				c.err.printf("It is good for one device until %s, and is not shown again.\n", code.ExpiresAt.In(c.zone).Format(time.RFC3339))
			})
		}),
	}
	cmd.Flags().StringVar(&user, "user", "", "`id` of the only user who may use it (default anyone)")
	cmd.Flags().Var(&expires, "expires", "how long it is good for, for example 30m (default 1h)")
	return cmd
}
