package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// expectation is what a case says of its outcome.
type expectation struct {
	Status    string
	Message   *string
	Responses []any
	AnyOrder  bool `json:"any_order"`
	Headers   map[string]any
	Trailers  map[string]any
	Details   []any
}

const tolerance = 1e-6

// matches tells whether a value has at least what the pattern has.
func matches(pattern, value any) bool {
	switch pattern := pattern.(type) {
	case map[string]any:
		members, ok := value.(map[string]any)
		for name, one := range pattern {
			found, there := members[name]
			ok = ok && there && matches(one, found)
		}
		return ok
	case []any:
		values, ok := value.([]any)
		ok = ok && len(values) == len(pattern)
		for i := 0; ok && i < len(pattern); i++ {
			ok = matches(pattern[i], values[i])
		}
		return ok
	case float64:
		number, ok := value.(float64)
		return ok && math.Abs(number-pattern) <= tolerance*math.Max(math.Abs(number), math.Abs(pattern))
	default:
		return pattern == value
	}
}

// first gives the first of the values that matches, or nil.
func first(pattern any, values []any) any {
	for _, value := range values {
		if matches(pattern, value) {
			return value
		}
	}
	return nil
}

// wrong tells what is not as expected; "" means nothing.
func (e expectation) wrong(got *outcome) string {
	responses := got.responses
	if e.AnyOrder && len(responses) == len(e.Responses) {
		responses = make([]any, len(e.Responses))
		for i, pattern := range e.Responses {
			responses[i] = first(pattern, got.responses)
		}
	}
	var faults []string
	fault := func(good bool, member string, value any) {
		if !good {
			shown, _ := json.Marshal(value) // JSON came, so JSON it is
			faults = append(faults, fmt.Sprintf("%s: %.1000s", member, shown))
		}
	}
	fault(e.Status == got.status, "status", got.status)
	fault(e.Message == nil || *e.Message == got.message, "message", got.message)
	fault(matches(e.Responses, responses), "responses", got.responses)
	fault(matches(e.Headers, got.headers), "headers", got.headers)
	fault(matches(e.Trailers, got.trailers), "trailers", got.trailers)
	for _, detail := range e.Details {
		fault(first(detail, got.details) != nil, "details", got.details)
	}
	if len(faults) == 0 {
		return ""
	}
	return fmt.Sprintf("%s (status %s: %s)", strings.Join(faults, "; "), got.status, got.message)
}
