import time
from datetime import datetime, UTC
from pathlib import Path
import glob
from llmops.corpus import *
from llmops.quality import QualityRules
exec([l for l in open('/tmp/scratch/corpus/preview.py').read().split('\n') if l.startswith('EX=')][0])
def test_x(database, tmp_path):
    url=database.url('llmops_worker')
    tf=Path(glob.glob('.venv/lib/python3.11/site-packages/*minilm*/**/tokenizer.json',recursive=True)[0])
    s=PackagesSource(kind='packages',name='libraries',packages=['psycopg','psycopg_pool','pgvector','deltalake','airflow.sdk','airflow.providers.standard','airflow.providers.databricks'],exclude=EX)
    c=Chunker(); root=str(tmp_path/'t')
    for i in range(3):
        t0=time.time()
        print(read_sources([s],as_of=datetime(2024,1,1+i,tzinfo=UTC),staging=tmp_path/'s'),time.time()-t0); t0=time.time()
        print(check_quality(tmp_path/'s',root,QualityRules()),time.time()-t0); t0=time.time()
        print(merge_documents(tmp_path/'s',root,url),time.time()-t0); t0=time.time()
        print(merge_chunks(root,{c.digest(tf):(c,tf)},url),time.time()-t0); t0=time.time()
        d=list(dump(root)); print(len(d),time.time()-t0)
