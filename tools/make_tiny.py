"""Pretrain the small model that ships in rpa/weights/tiny; a stopped run goes on where it was.

make_tiny.py [DST [WORK]]
"""
import sys
from pathlib import Path
from rpa.pretrain import make_tiny

ROOT = Path(__file__).resolve().parents[1]

if __name__=='__main__':
    dst, work = (sys.argv[1:]+[ROOT/'rpa/weights/tiny', ROOT/'runs/tiny'][len(sys.argv)-1:])[:2]
    make_tiny(dst, work)
