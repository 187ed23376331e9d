package survey_test

import (
	"slices"
	"strings"
	"testing"
)

// imports returns what the report says that a directory imports.
func imports(t *testing.T, text, dir string) []string {
	t.Helper()
	var names []string
	for name := range strings.SplitSeq(row(t, section(t, text, "What imports what"), "`"+dir+"`")[5], ", ") {
		if name != "" {
			names = append(names, strings.Trim(name, "`"))
		}
	}
	return names
}

func TestImportsAreUnderstoodInEachLanguage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tree     files
		dir      string
		imports  []string
		external string
	}{
		"Go, in two modules": {files{
			"go.mod":        "module example.com/m // comment\n\ngo 1.26\n",
			"cmd/main.go":   "package main\n\nimport (\n\t\"fmt\"\n\tx \"example.com/m/a/b\"\n\t_ \"example.com/tools/t\"\n\t\"github.com/o/r/v2/sub\"\n)\n",
			"a/b/b.go":      "package b\n",
			"a/b/b_test.go": "package b\nimport _ \"example.com/m/cmd\"\n",
			"tools/go.mod":  "module example.com/tools\n",
			"tools/t/t.go":  "package t\n",
		}, "cmd", []string{"a/b", "tools/t"}, "`github.com/o/r` (1)"},
		"TypeScript": {files{
			"src/app/main.ts":     "import { a } from './../lib/a';\nimport type {\n  B,\n} from \"../views\";\nimport React from 'react';\nimport x from '@scope/pkg/deep';\nexport * from '@/util/u.js';\n// import z from '../never';\nconst c = require('../common');\nconst d = await import('../lazy/page');\nimport fs from 'node:fs';\n",
			"src/lib/a.ts":        "export const a = 1;\n",
			"src/views/index.tsx": "export type B = 1;\n",
			"src/util/u.ts":       "export const u = 1;\n",
			"src/common/index.js": "module.exports = 1;\n",
			"src/lazy/page.vue":   "<script>\nlet p\n</script>\n",
			"src/never/index.ts":  "export const n = 1;\n",
		}, "src/app", []string{"src/common", "src/lazy", "src/lib", "src/util", "src/views"}, "`@scope/pkg` (1), `react` (1)"},
		"JavaScript workspaces": {files{
			"packages/a/package.json": `{"name": "@x/a"}`,
			"packages/a/index.js":     "const b = require('@x/b/lib/deep');\n",
			"packages/b/package.json": `{"name": "@x/b"}`,
			"packages/b/lib/deep.js":  "module.exports = 1;\n",
		}, "packages/a", []string{"packages/b/lib"}, ""},
		"Python": {files{
			"pyproject.toml":         "[project]\nname = \"p\"\n",
			"src/p/__init__.py":      "",
			"src/p/web/views.py":     "from __future__ import annotations\nimport os, sys\nimport requests as r\nfrom ..db import models\nfrom p.core.engine import Engine\nfrom . import forms\nfrom p import util\n",
			"src/p/web/forms.py":     "x = 1\n",
			"src/p/db/__init__.py":   "",
			"src/p/db/models.py":     "x = 1\n",
			"src/p/core/engine.py":   "x = 1\n",
			"src/p/util/__init__.py": "x = 1\n",
		}, "src/p/web", []string{"src/p", "src/p/core", "src/p/db", "src/p/util"}, "`requests` (1)"},
		"Rust": {files{
			"Cargo.toml":            "[workspace]\nmembers = [\"app\", \"my-core\"]\n",
			"app/Cargo.toml":        "[package]\nname = \"app\"\n",
			"app/src/main.rs":       "mod net;\nuse std::fmt;\npub use crate::net::client::Client;\nuse my_core::types::{A, B};\nuse serde::Deserialize;\nfn main() {}\n",
			"app/src/net/mod.rs":    "pub mod client;\n",
			"app/src/net/client.rs": "pub struct Client;\n",
			"my-core/Cargo.toml":    "[package]\nname = \"my-core\"\n",
			"my-core/src/lib.rs":    "pub mod types;\n",
			"my-core/src/types.rs":  "pub struct A;\n",
		}, "app/src", []string{"app/src/net", "my-core/src"}, "`serde` (1)"},
		"Java": {files{
			"src/main/java/a/b/App.java":   "package a.b;\n\nimport a.c.Thing;\nimport static a.d.Util.go;\nimport java.util.List;\nimport org.junit.jupiter.api.Test;\n\npublic class App { public static void main(String[] args) {} }\n",
			"src/main/java/a/c/Thing.java": "package a.c;\npublic class Thing {}\n",
			"src/main/java/a/d/Util.java":  "package a.d;\npublic class Util {}\n",
		}, "src/main/java/a/b", []string{"src/main/java/a/c", "src/main/java/a/d"}, "`org.junit.jupiter` (1)"},
		"C": {files{
			"src/main.c":      "#include <stdio.h>\n#include \"util/util.h\"\n#include \"pub.h\"\nint main(void) { return 0; }\n",
			"src/util/util.h": "int x;\n",
			"include/pub.h":   "int y;\n",
		}, "src", []string{"include", "src/util"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := report(t, write(t, c.tree), ".")
			if got := imports(t, text, c.dir); !slices.Equal(got, c.imports) {
				t.Errorf("%s imports %q, want %q", c.dir, got, c.imports)
			}
			shape := section(t, text, "What imports what")
			if c.external != "" {
				has(t, shape, "import: "+c.external+".")
			} else {
				hasNot(t, shape, "elsewhere")
			}
		})
	}
}

func TestProgramsAreFoundWhereTheyStart(t *testing.T) {
	t.Parallel()
	text := report(t, write(t, files{
		"cmd/x/main.go":  "package main\n\nfunc main() {}\n",
		"cmd/x/util.go":  "package main\n",
		"tool.py":        "if __name__ == '__main__':\n    pass\n",
		"src/main.rs":    "fn main() {}\n",
		"lib/library.go": "package lib\n",
	}), ".")
	has(t, text, "Programs start in `cmd/x/main.go`, `src/main.rs`, `tool.py`.")
}

func TestImportCyclesAndLayersAreFound(t *testing.T) {
	t.Parallel()
	text := report(t, write(t, files{
		"go.mod":    "module m\n",
		"a/a.go":    "package a\nimport _ \"m/b\"\n",
		"b/b.go":    "package b\nimport _ \"m/c\"\n",
		"c/c.go":    "package c\nimport (\n_ \"m/a\"\n_ \"m/base\"\n)\n",
		"base/x.go": "package base\n",
		"top/x.go":  "package top\nimport _ \"m/a\"\n",
	}), ".")
	has(t, section(t, text, "Worth acting on"), "**Import cycle**: `a`, `b`, `c` depend on each other (`a` → `b` → `c` → `a`)")
	for dir, layer := range map[string]string{"base": "0", "a": "1", "b": "1", "c": "1", "top": "2"} {
		if r := row(t, section(t, text, "What imports what"), "`"+dir+"`"); r[3] != layer {
			t.Errorf("%s is on layer %s, want %s", dir, r[3], layer)
		}
	}
	has(t, text, "```mermaid\n", "n0[\"a\"]\n", "n0 --> n1\n")
}

func TestADiagramOfManyDirectoriesShowsGroups(t *testing.T) {
	t.Parallel()
	tree := files{"go.mod": "module m\n", "cmd/main.go": "package main\nimport _ \"m/lib/a\"\n"}
	for c := 'a'; c <= 'z'; c++ {
		tree["lib/"+string(c)+"/x.go"] = "package x\nimport _ \"m/base/" + string(c) + "\"\n"
		tree["base/"+string(c)+"/x.go"] = "package x\n"
	}
	text := report(t, write(t, tree), ".")
	has(t, text, "  n0[\"base\"]\n  n1[\"cmd\"]\n  n2[\"lib\"]\n  n1 --> n2\n  n2 --> n0\n")
}

func TestDependenciesAreReadFromEachManifest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, content string
		want          []string
		not           []string
	}{
		"go.mod": {"go.mod", "module example.com/m\nrequire example.com/one v1.2.3\nrequire (\n\texample.com/two v0.1.0 // indirect\n\texample.com/three v2.0.0+incompatible // why\n)\nexclude (\n\texample.com/never v1.0.0\n)\n",
			[]string{"`example.com/m`: 2 direct dependencies, 1 indirect.", "- `example.com/one` v1.2.3\n", "`example.com/three`"}, []string{"never"}},
		"package.json": {"package.json", `{"name": "p", "dependencies": {"b": "^1.0", "a": "2"}, "devDependencies": {"t": "3"}}`,
			[]string{"2 direct dependencies, 1 development.", "- `a` 2\n- `b` ^1.0\n"}, nil},
		"package.json that is broken": {"package.json", `{"name": "p", "dependencies": [1]}`, []string{"npm package `p`: no dependencies."}, nil},
		"requirements.txt": {"requirements-dev.txt", "# comment\nDjango>=4.2,<5 ; python_version>\"3\"\n-r other.txt\nrequests[socks]==2.31 # why\n",
			[]string{"2 direct dependencies.", "- `Django` \\>=4.2,\\<5\n", "- `requests` ==2.31\n"}, []string{"other"}},
		"pyproject.toml": {"pyproject.toml", "[project]\nname = \"p\"\ndependencies = [\n  \"httpx>=0.27\",\n  'click[x] ~= 8.1',\n]\n[project.optional-dependencies]\ntest = [\"pytest\"]\n[tool.poetry.dependencies]\npython = \"^3.12\"\nrich = { version = \"13.7\", optional = true }\n[tool.black]\nline-length = 100\n",
			[]string{"Python project `p`: 3 direct dependencies, 1 optional.", "- `httpx` \\>=0.27\n", "- `click` \\~= 8.1\n", "- `rich` 13.7\n"}, []string{"line-length", "`python`"}},
		"Cargo.toml": {"Cargo.toml", "[package]\nname = \"c\"\nversion = \"1.0.0\"\n[dependencies]\nserde = { version = \"1.0\", features = [\"derive\"] }\nanyhow = \"1\"\nlocal.workspace = true\n[dependencies.tokio]\nversion = \"1.38\"\n[dev-dependencies]\nproptest = \"1\"\n[target.'cfg(unix)'.dependencies]\nnix = \"0.29\"\n",
			[]string{"Rust crate `c`: 5 direct dependencies, 1 development.", "- `serde` 1.0\n", "- `anyhow` 1\n", "- `local`\n", "- `tokio`\n", "- `nix` 0.29\n"}, []string{"derive"}},
		"pom.xml": {"pom.xml", "<project><artifactId>app</artifactId><dependencies><dependency><groupId>g</groupId><artifactId>a</artifactId><version>1</version></dependency><dependency><groupId>g</groupId><artifactId>t</artifactId><scope>test</scope></dependency></dependencies></project>",
			[]string{"Maven project `app`: 1 direct dependency, 1 development.", "- `g:a` 1\n"}, nil},
		"build.gradle.kts": {"build.gradle.kts", "dependencies {\n  implementation(\"g:a:1.0\")\n  testImplementation(\"g:t:2.0\")\n}\n",
			[]string{"1 direct dependency, 1 development.", "- `g:a` 1.0\n"}, nil},
		"Gemfile":       {"Gemfile", "gem 'rails', '~> 7.1'\ngem \"puma\"\n", []string{"2 direct dependencies.", "- `rails` \\~\\> 7.1\n"}, nil},
		"composer.json": {"composer.json", `{"name": "v/p", "require": {"php": ">=8"}, "require-dev": {"phpunit/phpunit": "^11"}}`, []string{"`v/p`: 1 direct dependency, 1 development."}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := section(t, report(t, write(t, files{c.file: c.content}), "."), "Dependencies")
			has(t, text, c.want...)
			hasNot(t, text, c.not...)
		})
	}
}

func TestRemarksAreListedWithTheirPlace(t *testing.T) {
	t.Parallel()
	text := section(t, report(t, write(t, files{
		"a.go": "package a\n\n// TODO(ann): tidy up\nvar x = 1 // FIXME it leaks\nvar s = \"TODO: not a remark\"\n/* HACK: round the block */\n",
		"b.py": "# XXX here\nTODO = 1\n",
		"c.md": "TODO: prose is no code\n",
		"d.go": "// Code generated by x. DO NOT EDIT.\n// TODO: not ours\npackage a\n",
	}), "."), "Left to do, as the code says")
	has(t, text, "FIXME 1, HACK 1, TODO 1, XXX 1.", "- `a.go:3` TODO tidy up\n", "- `a.go:4` FIXME it leaks\n", "- `a.go:6` HACK round the block\n", "- `b.py:1` XXX here\n")
	hasNot(t, text, "not a remark", "prose", "not ours")
}

func TestTestsAreMatchedWithWhatTheyTest(t *testing.T) {
	t.Parallel()
	text := section(t, report(t, write(t, files{
		"a/a.go":                   "package a\n\nvar X = 1\n",
		"a/b.go":                   "package a\n",
		"a/a_test.go":              "package a\n",
		"bare/x.go":                "package bare\n\nvar X = 1\n",
		"web/ok.ts":                "let a\n",
		"web/__tests__/ok.test.ts": "let t\n",
		"web/bare.ts":              "let b\n",
		"py/mod.py":                "x = 1\n",
		"tests/test_mod.py":        "y = 1\n",
		"r/lib.rs":                 "#[cfg(test)]\nmod tests {}\n",
		"J/Thing.java":             "class Thing {}\n",
		"J/ThingTest.java":         "class ThingTest {}\n",
	}), "."), "Tests beside code")
	for language, want := range map[string]string{"Go": "3 2 66.7 % 1", "TypeScript": "2 1 50.0 % 1", "Python": "1 1 100.0 % 1", "Rust": "1 1 100.0 % 0", "Java": "1 1 100.0 % 1"} {
		if r := row(t, text, language); strings.Join(r[1:5], " ") != want {
			t.Errorf("%s: %q, want %q", language, r[1:5], want)
		}
	}
	has(t, text, "- `bare`, 2 lines of code\n")
	hasNot(t, text, "- `a`", "- `web`")
}

func TestWhatStandsOutIsWorthActingOn(t *testing.T) {
	t.Parallel()
	tree := files{
		"go.mod":            "module m\nrequire example.com/x v1.0.0\n",
		"core/core.go":      "package core\n" + strings.Repeat("var _ = 1\n", 40),
		"long/long.go":      "package long\n" + strings.Repeat("var _ = 1\n", 1200),
		"long/long_test.go": "package long\n" + strings.Repeat("var _ = 1\n", 2000),
		"plain/p.go":        "package plain\n" + strings.Repeat("var _ = 1\n", 150) + "// FIXME: now\n",
	}
	for c := 'a'; c <= 'e'; c++ {
		tree[string(c)+"/x.go"] = "package x\nimport _ \"m/core\"\n"
	}
	text := section(t, report(t, write(t, tree), "."), "Worth acting on")
	has(t, text,
		"1. **Untested foundation**: `core` is imported by 5 directories",
		"**Long file**: `long/long.go` has 1,201 lines.",
		"**No tests**: `plain` has 151 lines of code",
		"**Known faults**: 1 FIXME in the code.",
		"**No README**", "**No continuous integration**",
		"**Versions not pinned**: `go.mod`")
	hasNot(t, text, "long_test.go")

	tree["README.md"], tree["go.sum"], tree[".github/workflows/ci.yml"] = "# m\n", "", "on: push\n"
	text = section(t, report(t, write(t, tree), "."), "Worth acting on")
	hasNot(t, text, "README", "continuous", "pinned")
}
