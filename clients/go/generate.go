// Package tetrad holds clients of a Tetrad gateway; `go generate .` writes the contract's code.
package tetrad

//go:generate go run ./generate
