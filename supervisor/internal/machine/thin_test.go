package machine

import (
	"reflect"
	"slices"
	"testing"
)

func TestThin(t *testing.T) {
	a, b, c := Steer{Weights: []int{1, 0}}, Steer{Weights: []int{0, 1}}, Steer{Weights: []int{1, 1}}
	said, flush, spawn := Report{Instance: 1}, Flush{Instance: 2}, Spawn{Instance: 2, Gen: 7}
	for _, tt := range []struct {
		name  string
		steps [][]Action
		want  []Action
	}{
		{"nothing", nil, nil},
		{"one", [][]Action{{a, said}}, []Action{a, said}},
		{"of several the last, and all reports", [][]Action{{a, said}, {b, said}, nil, {c, said}}, []Action{said, said, c, said}},
		{"what is flushed goes where it was to go", [][]Action{{a, flush, said}, {b}, {c}}, []Action{a, flush, said, c}},
		{"who starts has been steered away from", [][]Action{{a, said}, {b, spawn}, {c}}, []Action{said, b, spawn, c}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			Thin(tt.steps)
			if got := slices.Concat(tt.steps...); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v, wanted %v", got, tt.want)
			}
		})
	}
}
