<?php

namespace App\Models;

class PolicyConfiguration extends CompanyRecord
{
}
