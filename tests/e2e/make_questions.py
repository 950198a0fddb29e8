"""Writes questions.parquet beside it: 60 conversations for test_mixture.sh, in two row groups."""
import os
import pyarrow as pa
import pyarrow.parquet as pq

rows = [{"messages": [{"role": "user", "content": f"What is {i} times {i % 7}?"},
                      {"role": "assistant", "content": f"It is {i * (i % 7)}."}]} for i in range(60)]
here = os.path.dirname(os.path.abspath(__file__))
pq.write_table(pa.Table.from_pylist(rows), os.path.join(here, "questions.parquet"), row_group_size=30,
               compression="snappy")
