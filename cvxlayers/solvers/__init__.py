"""Temporary stand-in until the room is finished: Clarabel and DAQP in a loop."""
from dataclasses import dataclass
import numpy as np, scipy.sparse as sp
from cvxlayers.program import Solution, Status
from cvxlayers.solvers.solver import Options, Solver
@dataclass(frozen=True)
class Plan:
    primary: object
    fallback: object = None
@dataclass(frozen=True, eq=False)
class Outcome:
    solution: Solution
    solvers: list
@dataclass(frozen=True)
class Parsed:
    options: Options
    plan: Plan
    threads: int
@dataclass(frozen=True)
class Named:
    name: str
def select(structure, name, P_values=None):
    c=structure.cone
    daqp = c.polyhedral and structure.n<150 and structure.P.nnz>=structure.n
    return Plan(Named(name or ("DAQP" if daqp else "CLARABEL")))
def parse_options(solver_args, base, plan, structure, threads):
    return Parsed(base, plan, threads)
def solve_batch(program, plan, options, threads):
    import clarabel, daqp
    st=program.structure; c=st.cone
    cones=[clarabel.ZeroConeT(c.zero)]*bool(c.zero)+[clarabel.NonnegativeConeT(c.nonnegative)]*bool(c.nonnegative)+[clarabel.SecondOrderConeT(k) for k in c.second_order]+[clarabel.PSDTriangleConeT(k) for k in c.semidefinite]+[clarabel.ExponentialConeT()]*c.exponential+[clarabel.PowerConeT(a) for a in c.power]
    x=np.full((program.batch,st.n),np.nan); y=np.full((program.batch,st.m),np.nan); s=y.copy(); status=np.zeros(program.batch,int); it=np.zeros(program.batch,int)
    g=lambda a,i: a[min(i,len(a)-1)]
    use_daqp = plan.primary.name=="DAQP"
    if use_daqp:
        P=st.P.dense(program.P); A=st.A.dense(program.A); sense=np.zeros(st.m,np.int32); sense[:c.zero]=5
    for i in range(program.batch):
        if use_daqp:
            b=g(program.b,i); lo=b.copy(); lo[c.zero:]=-np.inf
            xx,_,flag,info=daqp.solve(g(P,i),g(program.q,i),g(A,i),b,lo,sense,primal_tol=1e-9,eps_prox=0.)
            if flag==1:
                x[i]=xx; y[i]=info['lam'][:st.m]; s[i]=b-g(A,i)@xx; s[i,:c.zero]=0; it[i]=info['iterations']; continue
        o=clarabel.DefaultSettings(); o.verbose=False; o.tol_gap_abs=o.tol_gap_rel=o.tol_feas=1e-9; o.max_threads=1
        r=clarabel.DefaultSolver(sp.triu(st.P.matrix(g(program.P,i))).tocsc(),g(program.q,i),st.A.matrix(g(program.A,i)).tocsc(),g(program.b,i),cones,o).solve()
        x[i]=r.x; y[i]=r.z; s[i]=r.s; it[i]=r.iterations
        status[i]={"Solved":0,"AlmostSolved":1,"PrimalInfeasible":2,"DualInfeasible":3,"InsufficientProgress":1}.get(str(r.status),6)
    return Outcome(Solution(x,y,s,status,it),[plan.primary.name]*program.batch)
