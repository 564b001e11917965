package plain_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/plain"
)

type inner struct {
	Name  string
	Count uint8 `json:",omitzero"`
	At    time.Time
	On    *bool `json:",omitempty"`
}

type outer struct {
	Text  string
	Words []string
	Small int8
	Big   int64
	Flag  bool
	One   *inner
	Many  []inner
	Raw   json.RawMessage
	Bytes []byte
	Map   map[string]int
	Nths  map[uint8]*inner
	Any   any
	Nth   uint64
}

// Each text, and whether it is read without encoding/json.
var texts = []struct {
	name  string
	text  string
	quick bool
}{
	{"nothing", `{}`, true},
	{"text", `{"Text":"a = b, ü"}`, true},
	{"a text with an escape", `{"Text":"a\"b\u003c"}`, true},
	{"a text that is none", `{"Text":7}`, false},
	{"a text with a bare control character", "{\"Text\":\"a\nb\"}", false},
	{"a text in another encoding", "{\"Text\":\"\xff\"}", true},
	{"a text without an end", `{"Text":"a`, false},
	{"several", `{"Text":"a","Words":["b","c"],"Small":-128,"Big":123456789012345678,"Flag":true,"Nth":7}`, true},
	{"an empty list", `{"Words":[]}`, true},
	{"null", `{"Words":null,"One":null,"Many":null,"Raw":null,"Map":null}`, true},
	{"null for what cannot be nil", `{"Text":null,"Small":null,"Flag":null,"One":{"Count":null,"At":null},"Nth":null}`, true},
	{"null and more", `{"Text":nullx}`, false},
	{"half of null", `{"Text":nul}`, false},
	{"parts", `{"One":{"Name":"a","Count":255,"At":"2026-01-02T03:04:05Z","On":false},"Many":[{"Name":"b"},{"Name":"c","On":true}]}`, true},
	{"what encoding/json reads", `{"Raw":{"a":[1,"]",{}]},"Bytes":"YWJj","Map":{"a":1},"Any":[1,2],"Nth":1}`, true},
	{"maps", `{"Map":{"a":1,"b":-1},"Nths":{"7":{"Name":"a"},"255":null}}`, true},
	{"empty maps", `{"Map":{},"Nths":{}}`, true},
	{"a map with a key twice", `{"Map":{"a":1,"a":2},"Nths":{"1":{"Name":"a"},"1":{"Count":1}}}`, true},
	{"a key with an escape", `{"Map":{"a\u003c":1}}`, false},
	{"a key that is no number", `{"Nths":{"x":null}}`, false},
	{"a key that is too large", `{"Nths":{"256":null}}`, false},
	{"a map that is cut off", `{"Map":{"a":1`, false},
	{"a map with a wrong value", `{"Map":{"a":true}}`, false},
	{"a time that is none", `{"One":{"At":"yesterday"}}`, false},
	{"a time that is no string", `{"One":{"At":7}}`, false},
	{"the largest", `{"Big":9223372036854775807,"Nth":18446744073709551615}`, true},
	{"too large", `{"Big":9223372036854775808}`, false},
	{"too large for a small one", `{"Small":128}`, false},
	{"a broken number", `{"Big":1.5}`, false},
	{"a number that begins with 0", `{"Big":01}`, false},
	{"minus nothing", `{"Big":-}`, false},
	{"less than nothing", `{"Nth":-1}`, false},
	{"another order", `{"Flag":true,"Text":"a"}`, false},
	{"twice", `{"One":{"Name":"a"},"One":{"Count":1}}`, false},
	{"an unknown name", `{"Text":"a","Future":1}`, false},
	{"a name in other letters", `{"text":"a"}`, false},
	{"spaces", ` { "Text" : "a" }`, false},
	{"a part that is wrong", `{"One":{"Name":"a","Count":256}}`, false},
	{"a part in another order", `{"One":{"Count":1,"Name":"a"}}`, false},
	{"a missing colon", `{"Text""a"}`, false},
	{"a comma too many", `{"Text":"a",}`, false},
	{"an element too few", `{"Words":["a",]}`, false},
	{"no value", `{"Text":}`, false},
	{"more behind it", `{"Text":"a"}{}`, false},
	{"wrong brackets", `{"Raw":[}]}`, false},
	{"cut off", `{"Words":["a"`, false},
	{"empty", ``, false},
	{"a list", `[]`, false},
}

func TestReadsWhatEncodingJSONReads(t *testing.T) {
	for _, row := range texts {
		t.Run(row.name, func(t *testing.T) {
			same(t, []byte(row.text))
			if got := plain.Read([]byte(row.text), new(outer)); got != row.quick {
				t.Errorf("read by itself: %v, want %v", got, row.quick)
			}
		})
	}
}

// same wants of Unmarshal what encoding/json does.
func same(t *testing.T, text []byte) {
	t.Helper()
	var got, want outer
	err, wantErr := plain.Unmarshal(text, &got), json.Unmarshal(text, &want)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Errorf("%q: %v, want %v", text, err, wantErr)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q:\n got %+v\nwant %+v", text, got, want)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, row := range texts {
		f.Add([]byte(row.text))
	}
	f.Fuzz(same)
}

// A type that is in itself, one with names of its own, one with another in it, one that
// reads itself.
type (
	tree  struct{ Below []tree }
	named struct {
		A int `json:"b"`
	}
	holding struct{ inner }
)

func TestUnusualTypes(t *testing.T) {
	for _, row := range []struct {
		text  string
		v     any
		quick bool
	}{
		{`{"Below":[{"Below":[{},{}]},{}]}`, &tree{}, true},
		{`{"b":1}`, &named{}, true}, // as a whole
		{`{"Name":"a"}`, &holding{}, true},
		{`"2026-01-02T03:04:05Z"`, &time.Time{}, true},
		{`7`, new(float64), true},
	} {
		want := reflect.New(reflect.TypeOf(row.v).Elem()).Interface()
		if err := json.Unmarshal([]byte(row.text), want); err != nil {
			t.Fatal(err)
		}
		if got := plain.Read([]byte(row.text), row.v); got != row.quick || !reflect.DeepEqual(row.v, want) {
			t.Errorf("%s: %v, %+v", row.text, got, row.v)
		}
	}
}
