package main

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kadm"
	"weir/interop/shared"
)

func (f franz) Administer(ctx context.Context, topic, group string) error {
	return errors.Join(f.cluster(ctx, topic), f.topic(ctx, topic), f.group(ctx, topic, group))
}

func (f franz) cluster(ctx context.Context, topic string) error {
	metadata, err := f.admin.BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	folders, foldersErr := f.admin.DescribeAllLogDirs(ctx, kadm.TopicsSet{topic: {0: {}}})
	resources, resourcesErr := f.admin.ListConfigResources(ctx)
	_, apisErr := f.admin.ApiVersions(ctx)
	return errors.Join(foldersErr, resourcesErr, apisErr, shared.Expect(len(metadata.Brokers) == len(shared.Brokers()) && metadata.Cluster != "", "cluster", metadata),
		shared.Expect(len(folders[metadata.Controller]) > 0, "folders", folders), shared.Expect(len(resources.Resources) > 0, "resources", resources))
}

func (f franz) topic(ctx context.Context, topic string) error {
	hour := "3600000"
	changed, err := f.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &hour}}, topic)
	retention := func() (string, error) {
		settings, err := f.admin.DescribeTopicConfigs(ctx, topic)
		for _, setting := range settings[0].Configs {
			if setting.Key == "retention.ms" {
				return setting.MaybeValue(), err
			}
		}
		return "", errors.Join(err, shared.Expect(false, "settings", settings))
	}
	created, createErr := f.admin.UpdatePartitions(ctx, 4, topic)
	deleted, deleteErr := f.admin.DeleteRecords(ctx, kadm.Offsets{topic: {0: {Topic: topic, Partition: 0, At: 10}}})
	newest, newestErr := f.admin.ListMaxTimestampOffsets(ctx, topic)
	producers, producersErr := f.admin.DescribeProducers(ctx, kadm.TopicsSet{topic: {0: {}}})
	if err := errors.Join(err, createErr, deleteErr, newestErr, producersErr); err != nil {
		return err
	}
	first, _, boundsErr := f.Bounds(ctx, topic)
	last, _ := newest.Lookup(topic, 0)
	return errors.Join(changed[0].Err, created[topic].Err, deleted[topic][0].Err, producers[topic].Partitions[0].Err, boundsErr, shared.WaitForPartitions(ctx, f, topic, 4),
		shared.WaitForSetting(ctx, hour, retention),
		shared.Expect(first == 10, "first offset", first), shared.Expect(last.Offset == 99, "newest record", newest))
}

func (f franz) group(ctx context.Context, topic, group string) error {
	listed, listErr := f.admin.ListGroups(ctx)
	lags, lagErr := f.admin.Lag(ctx, group)
	groupLag := lags[group]
	if err := errors.Join(listErr, lagErr, groupLag.Error()); err != nil {
		return err
	}
	lag, _ := groupLag.Lag.Lookup(topic, 0)
	moved := f.admin.CommitAllOffsets(ctx, group, kadm.Offsets{topic: {0: {Topic: topic, Partition: 0, At: 50, LeaderEpoch: -1}}})
	offsets, fetchErr := f.admin.FetchOffsets(ctx, group)
	commit, _ := offsets.Lookup(topic, 0)
	removed, removeErr := f.admin.DeleteOffsets(ctx, group, kadm.TopicsSet{topic: {0: {}}})
	_, deleteErr := f.admin.DeleteGroup(ctx, group)
	after, afterErr := f.admin.ListGroups(ctx)
	_, still := after[group]
	return errors.Join(moved, fetchErr, removeErr, removed.Error(), deleteErr, afterErr, shared.Expect(listed[group].State == "Empty", "group", listed[group]),
		shared.Expect(lag.Lag == 60, "lag", lags), shared.Expect(commit.At == 50, "commit", offsets), shared.Expect(!still, "groups", after))
}
