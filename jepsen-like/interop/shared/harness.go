// Package shared holds the cases of the Go clients. Each client is a Client; Main runs the cases against it.
package shared

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// Limits of a case, and of one wait inside of it.
const (
	caseLimit = 120 * time.Second
	waitLimit = 60 * time.Second
)

// ErrTopicExists is what Client.Create returns when there is such a topic.
var ErrTopicExists = errors.New("there is such a topic")

// Header is one header of a record. A nil value is a null.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record, as it is sent or as it was read. Nil is null. Time is milliseconds since 1970; 0 leaves it to the client.
type Record struct {
	Key, Value []byte
	Headers    []Header
	Time       int64
	Partition  int
	Offset     int64
}

// Sender sends records, with acks=all.
type Sender interface {
	// Send returns when all records are acknowledged.
	Send(ctx context.Context, topic string, records []Record) error
	Close() error
}

// Reader reads partition 0 without a group.
type Reader interface {
	Read(ctx context.Context, count int) ([]Record, error)
	SeekTo(offset int64) error
	Close() error
}

// Client is what the cases need of a client.
type Client interface {
	Create(ctx context.Context, topic string, partitions int, config map[string]string) error
	Delete(ctx context.Context, topic string) error
	// Partitions is the number of partitions, 0 of a topic that does not exist. It creates none.
	Partitions(ctx context.Context, topic string) (int, error)
	Sender(codec string, idempotent bool) (Sender, error)
	Reader(ctx context.Context, topic string, start int64) (Reader, error)
	// Bounds are the first offset of partition 0, and its end.
	Bounds(ctx context.Context, topic string) (first, end int64, err error)
	// OffsetForTime is the offset of the first record of partition 0 that is not older, or -1.
	OffsetForTime(ctx context.Context, topic string, milliseconds int64) (int64, error)
	// Consume is a member of a group until the context ends; it then leaves the group and returns nil. It hands each record
	// to handle, possibly from several goroutines, and commits up to the last record for which handle says so.
	Consume(ctx context.Context, topic, group string, handle func(Record) bool) error
	// Administer asks all that the client's administration knows about a topic of 100 records in one partition, and a group
	// without members that has committed 40 of them. It changes a setting, the number of partitions and the group's offsets,
	// deletes records and, in the end, the group.
	Administer(ctx context.Context, topic, group string) error
}

// Suite is a client and what it is able to do.
type Suite struct {
	Name        string
	Client      Client
	Idempotence bool
	// Notes say, by case, what of it the client leaves out, or does in its own way; or why it has no means for it.
	Notes map[string]string
	// Headers that the client can send and read; nil stands for all kinds.
	Headers []Header
	// Nulls are pairs of key and value that the client can tell apart; nil stands for all.
	Nulls [][2][]byte
	// NoAppendTime: the client reads the producer's timestamps whatever the topic's timestamp type is.
	NoAppendTime bool
	// More are cases of this client alone.
	More []Case

	run     string
	records int
}

type skip string

func (why skip) Error() string { return string(why) }

// Brokers are the addresses that the program was given.
func Brokers() []string { return strings.Split(os.Args[1], ",") }

// Main runs the cases, prints one line for each, and ends the process with 1 if one failed.
func Main(suite Suite) {
	suite.run = hex.EncodeToString([]byte{byte(rand.Int()), byte(rand.Int()), byte(rand.Int()), byte(rand.Int())})
	suite.records = 50_000
	if os.Getenv("SHORT") != "" {
		suite.records = 2_000
	}
	if suite.Headers == nil {
		suite.Headers = []Header{{"a", []byte("1")}, {"b", []byte("2")}, {"a", []byte("3")}, {"empty", []byte{}}, {"null", nil}}
	}
	if suite.Nulls == nil {
		key, value := []byte("key"), []byte("value")
		suite.Nulls = [][2][]byte{{nil, value}, {key, nil}, {nil, nil}, {{}, {}}, {key, value}}
	}
	failed := 0
	for _, each := range suite.cases() {
		note, noted := suite.Notes[each.name]
		switch err := limited(each.run); {
		case err == nil && noted:
			fmt.Printf("ok %s  # %s\n", each.name, note)
		case err == nil:
			fmt.Println("ok", each.name)
		case errors.As(err, new(skip)) && noted:
			fmt.Printf("skip %s: %s\n", each.name, note)
		case errors.As(err, new(skip)):
			fmt.Printf("skip %s: %v\n", each.name, err)
		default:
			failed = 1
			fmt.Printf("not ok %s: %s\n", each.name, strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
	os.Exit(failed)
}

// limited runs a case, and gives up on it when its time is over.
func limited(run func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), caseLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("not done within %v", caseLimit)
	}
}

type namedCase struct {
	name string
	run  func(context.Context) error
}

// Case is a case of one client alone. It is given a topic's name that nobody else uses.
type Case struct {
	Name string
	Run  func(ctx context.Context, topic string) error
}

func (s *Suite) cases() []namedCase {
	cases := []namedCase{{"create", s.create}}
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		cases = append(cases, namedCase{"produce-consume-" + codec, func(ctx context.Context) error { return s.codec(ctx, codec) }})
	}
	cases = append(cases,
		namedCase{"idempotence", s.idempotence},
		namedCase{"headers", s.headers},
		namedCase{"timestamps", s.timestamps},
		namedCase{"nulls", s.nulls},
		namedCase{"seek", s.seek},
		namedCase{"offsets-by-time", s.offsetsByTime},
		namedCase{"group", s.group},
		namedCase{"commit-resume", s.commitResume},
		namedCase{"admin", s.administration},
	)
	for _, each := range s.More {
		cases = append(cases, namedCase{each.Name, func(ctx context.Context) error { return each.Run(ctx, s.topic(each.Name)) }})
	}
	return cases
}

func (s *Suite) topic(name string) string { return s.Name + "-" + name + "-" + s.run }

func (s *Suite) send(ctx context.Context, topic, codec string, idempotent bool, records []Record) error {
	sender, err := s.Client.Sender(codec, idempotent)
	if err != nil {
		return err
	}
	return errors.Join(sender.Send(ctx, topic, records), sender.Close())
}

func (s *Suite) read(ctx context.Context, topic string, count int) ([]Record, error) {
	reader, err := s.Client.Reader(ctx, topic, 0)
	if err != nil {
		return nil, err
	}
	found, err := reader.Read(ctx, count)
	return found, errors.Join(err, reader.Close())
}

// sendAndRead creates a topic, sends the records to it and reads as many back.
func (s *Suite) sendAndRead(ctx context.Context, topic string, config map[string]string, records []Record) ([]Record, error) {
	if err := s.Client.Create(ctx, topic, 1, config); err != nil {
		return nil, err
	}
	if err := s.send(ctx, topic, "none", false, records); err != nil {
		return nil, err
	}
	return s.read(ctx, topic, len(records))
}

// numbered makes a topic of 100 records, a second apart, each with its offset as value.
func (s *Suite) numbered(ctx context.Context, name string, start int64) (string, error) {
	topic, records := s.topic(name), []Record{}
	for number := range 100 {
		records = append(records, Record{Value: fmt.Append(nil, number), Time: start + int64(number)*1000})
	}
	_, err := s.sendAndRead(ctx, topic, nil, records)
	return topic, err
}

// Expect fails with what was found, unless the condition holds.
func Expect(holds bool, what string, found any) error {
	if holds {
		return nil
	}
	return fmt.Errorf("%s: %+v", what, found)
}

// WaitForSetting looks until a topic's setting that was changed has its new value: a broker may learn of it a moment later.
func WaitForSetting(ctx context.Context, expected string, setting func() (string, error)) error {
	return waitFor(ctx, func() string { return "the setting " + expected }, func() (bool, error) {
		found, err := setting()
		return found == expected, err
	})
}

// WaitForPartitions looks until the client sees so many partitions of a topic.
func WaitForPartitions(ctx context.Context, client Client, topic string, expected int) error {
	return waitFor(ctx, func() string { return fmt.Sprint(expected, " partitions") }, func() (bool, error) {
		found, err := client.Partitions(ctx, topic)
		return found == expected, err
	})
}

// waitFor looks until the condition holds; it says what it waited for when the time is over.
func waitFor(ctx context.Context, what func() string, condition func() (bool, error)) error {
	deadline := time.Now().Add(waitLimit)
	for {
		if held, err := condition(); held || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s", waitLimit, what())
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
