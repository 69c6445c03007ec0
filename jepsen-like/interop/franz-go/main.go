// The cases of franz-go.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"weir/interop/shared"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

type franz struct{ admin *kadm.Client }

func client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(shared.Brokers()...))...)
}

func record(r *kgo.Record) shared.Record {
	found := shared.Record{Key: r.Key, Value: r.Value, Time: r.Timestamp.UnixMilli(), Partition: int(r.Partition), Offset: r.Offset}
	for _, header := range r.Headers {
		found.Headers = append(found.Headers, shared.Header{Key: header.Key, Value: header.Value})
	}
	return found
}

func (f franz) Create(ctx context.Context, topic string, partitions int, config map[string]string) error {
	settings := map[string]*string{}
	for name, value := range config {
		settings[name] = &value
	}
	_, err := f.admin.CreateTopic(ctx, int32(partitions), -1, settings, topic)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return shared.ErrTopicExists
	}
	return err
}

func (f franz) Delete(ctx context.Context, topic string) error {
	_, err := f.admin.DeleteTopic(ctx, topic)
	return err
}

func (f franz) Partitions(ctx context.Context, topic string) (int, error) {
	topics, err := f.admin.ListTopics(ctx)
	return len(topics[topic].Partitions), err
}

type sender struct{ *kgo.Client }

func (f franz) Sender(codec string, idempotent bool) (shared.Sender, error) {
	options := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codecs[codec]), kgo.RequiredAcks(kgo.AllISRAcks()),
	}
	if !idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	made, err := client(options...)
	return sender{made}, err
}

func (s sender) Send(ctx context.Context, topic string, records []shared.Record) error {
	sent := []*kgo.Record{}
	for _, each := range records {
		r := &kgo.Record{Topic: topic, Partition: int32(each.Partition), Key: each.Key, Value: each.Value}
		for _, header := range each.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
		}
		if each.Time != 0 {
			r.Timestamp = time.UnixMilli(each.Time)
		}
		sent = append(sent, r)
	}
	return s.ProduceSync(ctx, sent...).FirstErr()
}

func (s sender) Close() error {
	s.Client.Close()
	return nil
}

type reader struct {
	*kgo.Client
	topic string
}

func (f franz) Reader(_ context.Context, topic string, start int64) (shared.Reader, error) {
	made, err := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(start)}}))
	return reader{made, topic}, err
}

func (r reader) Read(ctx context.Context, count int) (found []shared.Record, err error) {
	for len(found) < count {
		fetches := r.PollRecords(ctx, count-len(found))
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(each *kgo.Record) { found = append(found, record(each)) })
	}
	return found, nil
}

func (r reader) SeekTo(offset int64) error {
	r.SetOffsets(map[string]map[int32]kgo.EpochOffset{r.topic: {0: {Epoch: -1, Offset: offset}}})
	return nil
}

func (r reader) Close() error {
	r.Client.Close()
	return nil
}

func (f franz) Bounds(ctx context.Context, topic string) (int64, int64, error) {
	starts, startErr := f.admin.ListStartOffsets(ctx, topic)
	ends, endErr := f.admin.ListEndOffsets(ctx, topic)
	start, _ := starts.Lookup(topic, 0)
	end, _ := ends.Lookup(topic, 0)
	return start.Offset, end.Offset, errors.Join(startErr, endErr, start.Err, end.Err)
}

func (f franz) OffsetForTime(ctx context.Context, topic string, milliseconds int64) (int64, error) {
	offsets, err := f.admin.ListOffsetsAfterMilli(ctx, milliseconds, topic)
	found, _ := offsets.Lookup(topic, 0)
	if found.Timestamp == -1 { // no such record: this client says where the partition ends
		return -1, errors.Join(err, found.Err)
	}
	return found.Offset, errors.Join(err, found.Err)
}

func (f franz) Consume(ctx context.Context, topic, group string, handle func(shared.Record) bool) error {
	member, err := client(
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(300*time.Millisecond), kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(200*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer member.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fetches := member.PollFetches(ctx)
		accepted := []*kgo.Record{}
		fetches.EachRecord(func(each *kgo.Record) {
			if handle(record(each)) {
				accepted = append(accepted, each)
			}
		})
		// No rebalance can be between the poll and this commit.
		if err := member.CommitRecords(context.WithoutCancel(ctx), accepted...); err != nil {
			return err
		}
		member.AllowRebalance()
	}
	return nil
}

func main() {
	admin, err := client()
	if err != nil {
		panic(err)
	}
	f := franz{kadm.NewClient(admin)}
	shared.Main(shared.Suite{
		Name: "franz-go", Client: f, Idempotence: true, More: []shared.Case{{Name: "offsets-topic", Run: f.offsetsTopic}},
	})
}
