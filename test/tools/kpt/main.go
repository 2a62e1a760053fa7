// A kpt for the render tests: kpt's own `fn`, `pkg` and `live` command groups behind a main function of ours.
// kpt's own main package can't be built from modules alone: `kpt alpha rollouts`, which nothing here uses, needs the
// module github.com/kptdev/kpt/rollouts, which not every Go module proxy serves.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/kptdev/kpt/commands/fn"
	"github.com/kptdev/kpt/commands/live"
	"github.com/kptdev/kpt/commands/pkg"
	kpterrors "github.com/kptdev/kpt/pkg/lib/errors"
	"github.com/kptdev/kpt/pkg/lib/errors/resolver"
	"github.com/kptdev/kpt/pkg/printer"
	"github.com/spf13/cobra"
)

func main() {
	ctx := printer.WithContext(context.Background(), printer.New(os.Stdout, os.Stderr))
	root := &cobra.Command{Use: "kpt", SilenceUsage: true, SilenceErrors: true}
	root.PersistentFlags().BoolVar(&printer.TruncateOutput, "truncate-output", true, "Enable the truncation for output")
	root.AddCommand(
		fn.GetCommand(ctx, "kpt"),
		pkg.GetCommand(ctx, "kpt"),
		live.GetCommand(ctx, "kpt", version()),
		&cobra.Command{Use: "version", Run: func(*cobra.Command, []string) { fmt.Println(version()) }},
	)
	if err := root.ExecuteContext(ctx); err != nil {
		os.Exit(report(err))
	}
}

// version is that of the kpt module which was linked in, in the form that `kpt version` has: 1.0.0-beta.60.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/kptdev/kpt" {
				return strings.TrimPrefix(dep.Version, "v")
			}
		}
	}
	return "unknown"
}

// report prints an error in the words that kpt uses for it and returns the exit code.
func report(err error) int {
	if resolved, ok := resolver.ResolveError(err); ok {
		if resolved.Message != "" {
			fmt.Fprintln(os.Stderr, resolved.Message)
		}
		return resolved.ExitCode
	}
	var kptError *kpterrors.Error
	if errors.As(err, &kptError) {
		if cause, ok := kpterrors.UnwrapErrors(kptError); ok {
			err = cause
		}
	}
	fmt.Fprintln(os.Stderr, "Error:", err)
	return 1
}
