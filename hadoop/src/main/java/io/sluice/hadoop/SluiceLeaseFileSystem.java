package io.sluice.hadoop;

import org.apache.hadoop.fs.LeaseRecoverable;

/**
 * {@link SluiceFileSystem} under the interface by which HBase and others find lease recovery. It is
 * there from Hadoop 3.3.6 on.
 */
public class SluiceLeaseFileSystem extends SluiceFileSystem implements LeaseRecoverable {}
